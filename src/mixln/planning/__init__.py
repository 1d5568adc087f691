"""Estimates the memory, FLOPs and time of a training run in advance, without allocating any weights."""
