"""Bounds for numbers that a user sets. Each bound is part of its field's type, and one function checks them all.

The upper bounds are far above what any cluster trains. They prevent a typing error (`--steps 1e15`, a number of 400 digits) from ending
in an overflow, hours without output, or exhausted memory.
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
"""Largest number of optimizer steps of a training run."""
MOST_TOKENS = 10**15
"""Largest number of tokens of a training run."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds for a number.

    :param least: smallest value; with `above`, an exclusive bound.
    :param most: largest value; with `below`, an exclusive bound.
    :param rule: text for the lower bound in an error message; by default made from the number.
    :param unit: unit after the number in an error message.
    :param interval: whether `rule` describes both bounds.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    rule: str = ""
    unit: str = ""
    interval: bool = False

    def check(self, name: str, value: float) -> None:
        """:raises SettingsError: if the number is out of bounds; infinite and NaN count as below the lower bound."""
        # math.isfinite() overflows for an int that no float can hold.
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or value < self.least or (self.above and value == self.least):
            rule = self.rule or f"must be {'above' if self.above else 'at least'} {self.least:,}{self.unit}"
        elif value > self.most or (self.below and value == self.most):
            rule = f"must be {'below' if self.below else 'at most'} {self.most:,}{self.unit}"
            rule = self.rule if self.interval else rule
        else:
            return
        raise SettingsError(f"{name.replace('_', '-')} {rule}, got {short(value)}")


def check_numbers(settings: Any) -> None:
    """Checks every number of a settings record against the bounds in its field's type; `None` and fields without bounds are skipped.

    :raises SettingsError: for the first number out of bounds.
    """
    for name, bound in _bounds(type(settings)):
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None:
                bound.check(name, number)


@cache
def _bounds(kind: type[Any]) -> tuple[tuple[str, Range], ...]:
    types = get_type_hints(kind, include_extras=True)
    return tuple((item.name, bound) for item in fields(kind) for bound in found_in(types[item.name]))


def found_in(kind: Any) -> Iterator[Range]:
    """Iterates over the bounds in a type's metadata, including those of its parts, such as `Steps | None`."""
    yield from (entry for entry in getattr(kind, "__metadata__", ()) if isinstance(entry, Range))
    for part in get_args(kind):
        if not isinstance(part, Range):
            yield from found_in(part)


def short(value: float) -> str:
    """A number for an error message; a very long integer as its number of digits."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of about {round(value.bit_length() * math.log10(2)):,} digits"
    return str(value)


_ABOVE = {"least": 0, "above": True}
_NOT_NEGATIVE = {"least": 0, "rule": "must be 0 or more"}

Steps = Annotated[int, Range(least=1, most=MOST_STEPS)]
Tokens = Annotated[int, Range(least=1, most=MOST_TOKENS)]
Layers = Annotated[int, Range(least=1, most=MOST_LAYERS)]
Length = Annotated[int, Range(least=2, most=10**7, unit=" tokens")]
"""Sequence length in tokens."""
Batch = Annotated[int, Range(least=1, most=10**7)]
Vocabulary = Annotated[int, Range(least=1, most=10**7)]
Seed = Annotated[int, Range(least=0, most=2**32 - 1, rule="must lie in [0, 2³²)", interval=True)]
Count = Annotated[int, Range(least=1, most=10**9)]
"""Number of examples, questions, images or training runs."""
Processes = Annotated[int, Range(least=1, most=10**6)]
"""Number of processes, processors or devices."""
Pixels = Annotated[int, Range(least=1, most=10**5)]
Rank = Annotated[int, Range(least=1, most=10**5)]
Share = Annotated[float, Range(least=0, most=1, below=True, rule="must lie in [0, 1)", interval=True)]
Positive = Annotated[float, Range(**_ABOVE, most=10**6)]
NotNegative = Annotated[float, Range(**_NOT_NEGATIVE, most=10**6)]
Seconds = Annotated[float, Range(**_NOT_NEGATIVE, most=10**9)]
Epochs = Annotated[float, Range(**_ABOVE, most=10**6)]
