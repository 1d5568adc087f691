"""Golden numbers: small fixed runs of the command line, whose numbers no redesign may change.

`python -m tests.golden [NAME ...]` runs them anew and writes `tests/golden/data/NAME.json`. Do so only when a number is meant to change,
and say in the commit why.
"""
