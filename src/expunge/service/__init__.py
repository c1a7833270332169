"""The control plane: requests come in, deadlines hold, evidence goes out."""
