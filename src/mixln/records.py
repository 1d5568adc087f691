"""The codec between frozen records (keyword-only dataclasses) and JSON.

Reading is strict. Every entry must have its field's type, and no entry may be missing or unknown; the error gives the entry's path:
`trial.learning_rate must be a finite number, got "x"`. A default value alone does not make an entry optional; these do:

    OPTIONAL             metadata of a field whose entry may be missing, because earlier versions did not write it
    Partial              class in which every entry with a default may be missing: settings
    Sparse               Partial that is also written without the entries that equal their defaults: placements

Writing adds the properties marked :class:`derived`; reading ignores them.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mixln.errors import RecordError, UnknownEntry

T = TypeVar("T")
Reader = Callable[[Any], Any]
"""Converts an entry of JSON types to a field's value, or raises :class:`RecordError`."""
LARGEST = 2**28
"""Largest JSON file that is read, bytes (256 MiB). Parsed, it takes about ten times as much memory."""
SHOWN = 200
"""Largest number of characters of a value in an error message."""
OPTIONAL: Mapping[str, bool] = {"optional": True}
"""Metadata of a field whose entry may be missing, because earlier versions did not write it; the field then has its default."""

NEUTRAL = "neutral"
"""Annotation of a setting that changes no measured number: where files are, where trials run, what is reported, and the grid itself."""


class derived(property):
    """A property that is written with the fields of its record and ignored when the record is read."""


class Partial:
    """Base of records whose JSON may lack any entry that has a default."""


class Sparse(Partial):
    """Base of records whose JSON omits the entries that equal their defaults."""


def to_json(value: Any) -> Any:
    """Converts a record, or a dict or list of records, to plain JSON types. A non-finite float becomes `None`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if is_dataclass(value):
        return {name: to_json(getattr(value, name)) for name in _written(value)}
    return str(value) if isinstance(value, Path) else value


def decisive(settings: Any) -> dict[str, Any]:
    """The settings that are not :data:`NEUTRAL`, as JSON."""
    types = get_type_hints(type(settings), include_extras=True)
    return {
        name: value
        for name, value in to_json(settings).items()
        if NEUTRAL not in getattr(types[name], "__metadata__", ())
    }


def from_json(kind: type[T], data: Any, path: str = "") -> T:
    """Reads a record from the output of :func:`to_json`. `None` becomes NaN where the type is `float`.

    :param kind: the record's class.
    :param path: prefix for the path in an error, if `data` is part of a larger object.
    :raises RecordError: for the first entry that is wrong, unknown (:class:`~mixln.errors.UnknownEntry`) or missing.
    """
    try:
        return _reader(kind)(data)
    except RecordError as error:
        error.path = f"{path}{error.path}"
        raise


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    :raises ValueError: if it is not JSON, too large or nested too deeply; :class:`OSError` if it cannot be read.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, more than the limit of {LARGEST:,}")
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unreadable(path: Path, error: Exception, remedy: str) -> str:
    """Error message for a JSON file that could not be read into a record.

    :param remedy: for a corrupt file. A file of a newer version is not corrupt: the remedy is then to update mixln.
    """
    if isinstance(error, UnknownEntry):
        return f"{path}: {error}; update mixln"
    return f"{path} is corrupt ({error}); {remedy}"


def difference(before: Any, now: dict[str, Any], path: str = "") -> str:
    """Describes the first entry that differs between two nested dicts of JSON types: `steps was 300, now 400`; empty if none does."""
    if not isinstance(before, dict):
        return f"{path or 'it'} was {_short(before)}, now {_short(now)}"
    for name in dict.fromkeys([*before, *now]):
        label = f"{path}{name.replace('_', '-')}"
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if nested := difference(old, new):
                return nested
        elif old != new:
            return f"{label} was {_short(old)}, now {_short(new)}"
    return ""


def _short(value: Any) -> str:
    """A value as text; a hash is abbreviated to eight digits."""
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return f"{text[:8]}…"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


# Writing


def _written(record: Any) -> Iterable[str]:
    """Names of the entries that are written."""
    if issubclass(type(record), Sparse):
        return [item.name for item in fields(record) if getattr(record, item.name) != _default(item)]
    return (*(item.name for item in fields(record)), *_derived(type(record)))


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


@cache
def _derived(kind: type) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name, value in vars(base).items() if isinstance(value, derived))


# Reading: one cached reader per type. A failing reader states the rule; each enclosing container prepends its step to the path.


@cache
def _reader(kind: Any) -> Reader:
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) in GENERIC:
        return GENERIC[get_origin(kind)](get_args(kind))
    if is_dataclass(kind):
        return _record_reader(kind)
    raise TypeError(f"no JSON form of the type {kind}")


def _record_reader(kind: Any) -> Reader:
    types = get_type_hints(kind)
    readers = {item.name: _reader(types[item.name]) for item in fields(kind)}
    required = [item.name for item in fields(kind) if not _may_be_missing(kind, item)]
    ignored = _derived(kind)

    def read(data: Any) -> Any:
        entries = {name: entry for name, entry in _checked(Mapping, data).items() if name not in ignored}
        if unknown := [name for name in entries if name not in readers]:
            raise UnknownEntry(f"is unknown to this version of mixln; known: {', '.join(readers)}", f".{unknown[0]}")
        if missing := [name for name in required if name not in entries]:
            raise RecordError("is missing", f".{missing[0]}")
        values = {name: _inside(f".{name}", readers[name], entry) for name, entry in entries.items()}
        try:
            return kind(**values)
        except ValueError as error:
            raise RecordError(f"cannot be used: {error}") from error

    return read


def _may_be_missing(kind: type, item: Field[Any]) -> bool:
    has_default = item.default is not MISSING or item.default_factory is not MISSING
    return has_default and (item.metadata == OPTIONAL or issubclass(kind, Partial))


def _inside(step: str, read: Reader, entry: Any) -> Any:
    try:
        return read(entry)
    except RecordError as error:
        error.path = f"{step}{error.path}"
        raise


def _checked(kind: Any, data: Any) -> Any:
    if not isinstance(data, kind) or isinstance(data, bool) != (kind is bool):
        raise RecordError(f"must be {NAMES[kind]}, got {_shown(data)}")
    return data


def _shown(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _float(data: Any) -> float:
    if data is None:
        return math.nan
    if isinstance(data, bool) or not isinstance(data, int | float) or not abs(data) <= sys.float_info.max:
        raise RecordError(f"must be a finite number, got {_shown(data)}")
    return data


def _optional_reader(inner: tuple[Any, ...]) -> Reader:
    (kind,) = (member for member in inner if member is not NoneType)
    read = _reader(kind)
    return lambda data: None if data is None else read(data)


def _literal_reader(values: tuple[Any, ...]) -> Reader:
    def read(data: Any) -> Any:
        if not any(data == value and type(data) is type(value) for value in values):
            raise RecordError(f"must be one of {', '.join(map(str, values))}, got {_shown(data)}")
        return data

    return read


def _tuple_reader(inner: tuple[Any, ...]) -> Reader:
    if inner[-1] is Ellipsis:
        read_entry = _reader(inner[0])
        return lambda data: _all_read(_checked((list, tuple), data), repeat(read_entry))
    readers = tuple(map(_reader, inner))

    def read(data: Any) -> Any:
        if len(_checked((list, tuple), data)) != len(readers):
            raise RecordError(f"must have {len(readers)} entries, got {len(data)}")
        return _all_read(data, readers)

    return read


def _all_read(data: Iterable[Any], readers: Iterable[Reader]) -> tuple[Any, ...]:
    values: list[Any] = []
    try:
        for entry, read in zip(data, readers, strict=False):  # readers are endless, or checked to have the same length
            values.append(read(entry))
    except RecordError as error:
        error.path = f"[{len(values)}]{error.path}"
        raise
    return tuple(values)


def _dict_reader(inner: tuple[Any, ...]) -> Reader:
    read = _reader(inner[1])
    return lambda data: {name: _inside(f".{name}", read, entry) for name, entry in _checked(Mapping, data).items()}


NAMES: dict[Any, str] = {
    Mapping: "an object",
    (list, tuple): "a list",
    str: "a string",
    int: "an integer",
    bool: "true or false",
}
PLAIN: dict[Any, Reader] = {
    Any: lambda data: data,
    object: lambda data: data,
    float: _float,
    Path: lambda data: Path(_checked(str, data)),
    **{kind: partial(_checked, kind) for kind in (str, int, bool)},
}
GENERIC: dict[Any, Callable[[tuple[Any, ...]], Reader]] = {
    Union: _optional_reader,
    UnionType: _optional_reader,
    Literal: _literal_reader,
    tuple: _tuple_reader,
    dict: _dict_reader,
}
