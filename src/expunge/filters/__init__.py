"""What keeps marked phrases out of texts: normal forms, keyed digests, near matches, and streams that hold back."""
