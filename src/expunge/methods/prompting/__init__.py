"""Unlearning by prompting: the weights stay, and what stands around them keeps the answers back."""
