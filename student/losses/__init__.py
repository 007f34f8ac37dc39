"""Matching of predictions with targets, and the losses over the matched pairs."""
