"""Frozen records as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


def to_json(record: Any) -> Any:
    """A record as plain JSON types, with its derived perplexities written out."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        entries = {item.name: to_json(getattr(record, item.name)) for item in dataclasses.fields(record)}
        if hasattr(type(record), "perplexity"):
            entries["perplexity"] = to_json(record.perplexity)  # type: ignore[attr-defined]
        return entries
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record
