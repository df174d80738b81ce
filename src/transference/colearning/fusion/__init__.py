"""Co-learning by sharing a representation."""
