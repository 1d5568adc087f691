"""Bounds of the numbers that a user gives: each stands in the type of its field, and one function checks them all.

The upper ends are far above what any cluster trains; they keep a slip of the keyboard (`--steps 1e15`, a number of 400 digits) from ending
in an overflow, in hours of silence or in a full memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from mixln.errors import SettingsError
from mixln.placement import MOST_LAYERS

MOST_STEPS = 10**9
"""Optimizer steps of one training."""
MOST_TOKENS = 10**15
"""Tokens of one training."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """Bounds of a number.

    :param least: the lowest value, or with `above` the one that it must exceed.
    :param most: the highest value, or with `below` the one that it must stay under.
    :param rule: words for the lower bound in an error; by default its number.
    :param unit: what is counted, behind the number.
    :param interval: whether the rule says both ends.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    rule: str = ""
    unit: str = ""
    interval: bool = False

    def check(self, name: str, value: float) -> None:
        """:raises SettingsError: if a number lies outside; one that is not finite lies below."""
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or value < self.least or (self.above and value == self.least):
            said = self.rule or f"must be {'above' if self.above else 'at least'} {self.least:,}{self.unit}"
        elif value > self.most or (self.below and value == self.most):
            said = f"must be {'below' if self.below else 'at most'} {self.most:,}{self.unit}"
            said = self.rule if self.interval else said
        else:
            return
        raise SettingsError(f"{name.replace('_', '-')} {said}, got {short(value)}")


def check_numbers(settings: Any) -> None:
    """Checks every number of a record of settings against the bound in its field's type; `None` and other types are passed over.

    :raises SettingsError: for the first that lies outside.
    """
    for name, bound in _bounds(type(settings)):
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                bound.check(name, each)


@cache
def _bounds(kind: type[Any]) -> tuple[tuple[str, Within], ...]:
    types = get_type_hints(kind, include_extras=True)
    return tuple((item.name, bound) for item in fields(kind) for bound in found_in(types[item.name]))


def found_in(kind: Any) -> Iterator[Within]:
    """The bounds in a type: in its metadata, or in that of a part of it."""
    yield from (each for each in getattr(kind, "__metadata__", ()) if isinstance(each, Within))
    for part in get_args(kind):
        if not isinstance(part, Within):
            yield from found_in(part)


def short(value: float) -> str:
    """A number as text; of a whole number that fills a line, how many digits it has."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of about {round(value.bit_length() * math.log10(2)):,} digits"
    return str(value)


_ABOVE = {"least": 0, "above": True}
_NOT_NEGATIVE = {"least": 0, "rule": "must be 0 or more"}

Steps = Annotated[int, Within(least=1, most=MOST_STEPS)]
Tokens = Annotated[int, Within(least=1, most=MOST_TOKENS)]
Layers = Annotated[int, Within(least=1, most=MOST_LAYERS)]
Length = Annotated[int, Within(least=2, most=10**7, unit=" tokens")]
"""Tokens of a sequence."""
Batch = Annotated[int, Within(least=1, most=10**7)]
Vocabulary = Annotated[int, Within(least=1, most=10**7)]
Seed = Annotated[int, Within(least=0, most=2**32 - 1, rule="must lie in [0, 2³²)", interval=True)]
Count = Annotated[int, Within(least=1, most=10**9)]
"""A number of examples, questions, images or trainings."""
Processes = Annotated[int, Within(least=1, most=10**6)]
"""A number of processes, processors or devices."""
Pixels = Annotated[int, Within(least=1, most=10**5)]
Rank = Annotated[int, Within(least=1, most=10**5)]
Share = Annotated[float, Within(least=0, most=1, below=True, rule="must lie in [0, 1)", interval=True)]
Positive = Annotated[float, Within(**_ABOVE, most=10**6)]
NotNegative = Annotated[float, Within(**_NOT_NEGATIVE, most=10**6)]
Seconds = Annotated[float, Within(**_NOT_NEGATIVE, most=10**9)]
Epochs = Annotated[float, Within(**_ABOVE, most=10**6)]
