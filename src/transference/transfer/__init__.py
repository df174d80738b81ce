"""The secondary modality is gone at test time, and the knowledge comes from a model already trained on it."""
