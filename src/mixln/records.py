"""Frozen records as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

LARGEST = 2**28
"""Bytes of a JSON file that is read, which takes about ten times as much memory."""


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


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    :raises ValueError: whatever is wrong with its text; :class:`OSError` if it cannot be read.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, more than the {LARGEST:,} that are read")
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def from_json(kind: Any, data: Any, path: str = "") -> Any:
    """Reads what :func:`to_json` wrote of a record, by the types of its fields.

    :param kind: a record's class, or the type of a field: a tuple, a dict, a union with `None`, a literal, or a plain JSON type.
    :param path: where `data` stands in the whole, for what is said of it.
    :raises KeyError: if a field without a default is missing; :class:`TypeError` if data has another form than its type.
    """
    if dataclasses.is_dataclass(kind):
        entries, types = _of_form(dict, data, path), get_type_hints(kind)
        known = [
            item.name
            for item in dataclasses.fields(kind)
            if item.name in entries or (item.default is item.default_factory is dataclasses.MISSING)
        ]
        return kind(**{name: from_json(types[name], entries[name], f"{path}.{name}".strip(".")) for name in known})  # type: ignore[operator]
    if kind is Any:
        return data
    if kind is float:
        if data is None:
            return math.nan
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            raise TypeError(f"{path} must be a finite number, got {_short(data)}")
        return data
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return None if data is None else from_json(next(each for each in inner if each is not NoneType), data, path)
    if origin is Literal:
        if data not in inner:
            raise TypeError(f"{path} must be one of {', '.join(map(str, inner))}, got {_short(data)}")
        return data
    if origin is tuple:
        values = _of_form(list, data, path)
        kinds = [inner[0]] * len(values) if Ellipsis in inner else inner
        if len(kinds) != len(values):
            raise TypeError(f"{path} must have {len(kinds)} entries, got {len(values)}")
        return tuple(from_json(each, value, path) for each, value in zip(kinds, values, strict=True))
    if origin is dict:
        return {name: from_json(inner[1], each, f"{path}.{name}") for name, each in _of_form(dict, data, path).items()}
    return _of_form(kind, data, path)


FORMS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def _of_form(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, kind) or isinstance(data, bool) != (kind is bool):
        raise TypeError(f"{path or 'it'} must be {FORMS[kind]}, got {_short(data)}")
    return data


def difference(there: dict[str, Any], here: dict[str, Any], path: str = "") -> str:
    """The first entry of two nested dicts of JSON types that differs, in words; empty if none does."""
    if not isinstance(there, dict):
        return f"{path or 'it'} there {_short(there)}, here {_short(here)}"
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
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return f"{text[:8]}…"
    return text if len(text) <= 200 else f"{text[:200]}…"
