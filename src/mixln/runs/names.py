"""Descriptive folder names."""

from __future__ import annotations

import hashlib
import re

LONGEST = 120
"""Largest number of characters of a placement in a folder name; most file systems allow 255 bytes for the whole name."""


def slug(placement: str) -> str:
    """A placement's text as a folder name: `mix(0.25)` → `mix-0.25`, `hybrid**3,pre` → `hybrid-starx3_pre`."""
    text = re.sub(r"\*(?=\d)", "x", placement).replace("*", "-star").replace(",", "_").replace("/", "-of-")
    text = re.sub(r"[()]+", "-", text).strip("-").replace("-x", "x").replace("-_", "_")
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}-{hashlib.sha256(placement.encode()).hexdigest()[:8]}"
