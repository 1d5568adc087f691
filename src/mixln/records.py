"""Frozen records as JSON."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints


def to_json(record: Any) -> Any:
    """A record as plain JSON types, with its derived perplexities written out.

    A float that is not finite becomes `None`, and comes back as NaN.
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        entries = {item.name: to_json(getattr(record, item.name)) for item in dataclasses.fields(record)}
        if hasattr(type(record), "perplexity"):
            entries["perplexity"] = to_json(record.perplexity)  # type: ignore[attr-defined]
        return entries
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, Path):
        return str(record)
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record


def from_json(kind: Any, data: Any) -> Any:
    """Reads what :func:`to_json` wrote of a record, by the types of its fields.

    :param kind: a record's class, or the type of a field: a tuple, a dict, a union with `None`, or a plain JSON type.
    :raises KeyError: if a field without a default is missing; :class:`TypeError` if data has another form than its type.
    """
    if dataclasses.is_dataclass(kind):
        types = get_type_hints(kind)
        known = [
            item.name for item in dataclasses.fields(kind) if item.name in data or item.default is dataclasses.MISSING
        ]
        return kind(**{name: from_json(types[name], data[name]) for name in known})  # type: ignore[operator]
    if kind is float:
        return math.nan if data is None else data
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if data is None else from_json(next(each for each in inner if each is not NoneType), data)
    if get_origin(kind) is tuple:
        return tuple(from_json(inner[0], each) for each in data)
    if get_origin(kind) is dict:
        return {name: from_json(inner[1], each) for name, each in data.items()}
    return data


def difference(there: dict[str, Any], here: dict[str, Any], path: str = "") -> str:
    """The first entry of two nested dicts of JSON types that differs, in words; empty if none does."""
    for name in dict.fromkeys([*there, *here]):
        label = f"{path}{name.replace('_', '-')}"
        a, b = there.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            if found := difference(a, b):
                return found
        elif a != b:
            return f"{label} there {_short(a)}, here {_short(b)}"
    return ""


def _short(value: Any) -> str:
    """A value in words; of a hash, enough to tell it from another."""
    text = str(value)
    return f"{text[:8]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text
