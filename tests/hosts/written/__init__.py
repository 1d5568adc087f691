"""Records of ten families as they were written by hand, before they were derived: what derivation must give.

Without `cannot`, which is not derived: `hosts/overrides.py` has it.
"""
