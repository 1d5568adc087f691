"""Records to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from mixln.records import from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    value: float
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner
    many: tuple[Inner, ...]
    maybe: Inner | None
    table: dict[str, tuple[float | None, ...]]
    counts: tuple[tuple[int, ...], ...] = ()


def test_there_and_back():
    whole = Outer(
        name="a",
        inner=Inner(value=1.5, end=2.5),
        many=(Inner(value=1.0), Inner(value=2.0)),
        maybe=None,
        table={"b": (1.0, None)},
        counts=((1, 2), ()),
    )
    assert from_json(Outer, json.loads(json.dumps(to_json(whole)))) == whole


def test_a_figure_that_is_not_finite_comes_back_as_one():
    data = json.loads(json.dumps(to_json(Inner(value=math.inf, end=math.nan)), allow_nan=False))
    assert data == {"value": None, "end": None}
    found = from_json(Inner, data)
    assert math.isnan(found.value)
    assert found.end is None


def test_a_missing_field_takes_its_default_or_is_an_error():
    assert from_json(Inner, {"value": 1.0}) == Inner(value=1.0)
    with pytest.raises(KeyError, match="value"):
        from_json(Inner, {"end": 1.0})


def test_a_path_is_its_text():
    assert to_json({"path": Path("a") / "b"}) == {"path": str(Path("a/b"))}
