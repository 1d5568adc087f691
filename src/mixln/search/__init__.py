"""Searches over the settings of a training: where it breaks, and which placement and learning rate to take."""
