"""What people said, as training data: what they allowed, what became of it, and how it is taken back."""
