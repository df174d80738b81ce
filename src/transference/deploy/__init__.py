"""What leaves the house: the exported model and the predictor that answers new rows."""
