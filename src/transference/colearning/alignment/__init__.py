"""Co-learning by matching one modality's representation to the other's."""
