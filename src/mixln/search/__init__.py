"""Searches over training settings: stability limits of placements, and the best placement and learning rate."""
