"""Co-learning by predicting one modality from the other."""
