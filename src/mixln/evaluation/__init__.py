"""Evaluation on lm-eval's tasks, from the hub or from an installed package, and paired comparisons on the same questions.

lm-eval is optional (`pip install "mixln[tasks]"`).
"""
