"""The secondary modality is gone at test time and helps only in training: one model, both modalities."""
