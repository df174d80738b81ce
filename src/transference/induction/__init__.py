"""The secondary modality is gone at test time, and separate models teach one another."""
