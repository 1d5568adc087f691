"""Runs trials in worker processes: of this machine, of torchrun, or of a Ray cluster."""
