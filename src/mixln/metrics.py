"""Metrics: a number taken from a record, and how it is averaged, compared and printed. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from mixln import formats

Scale = Literal["itself", "natural logarithm", "hundredth"]
Subject = TypeVar("Subject", contravariant=True)
Other = TypeVar("Other", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The relation between the number that is averaged and the one that is printed.

    :param name: relation of the averaged number to the printed one; stored beside means in result files.
    :param printed: averaged number → printed number; `averaged` is the inverse.
    """

    name: Scale
    printed: Callable[[float], float]
    averaged: Callable[[float], float]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # exp overflows float64 above 709, as for a diverged loss


IDENTITY = Transform(name="itself", printed=float, averaged=float)
LOGARITHM = Transform(name="natural logarithm", printed=_exp, averaged=math.log)
SHARE = Transform(name="hundredth", printed=lambda share: 100 * share, averaged=lambda percent: percent / 100)


@dataclass(frozen=True, kw_only=True)
class Metric(Generic[Subject]):
    """One number of a subject, for example the perplexity of a trial.

    Means, differences and intervals are computed on `value`; `transform.printed` converts it for printing.

    :param name: identifier in result files.
    :param short: short heading, may contain line breaks; by default the name.
    :param value: subject → the number that is averaged; `None` if it has none.
    :param unit: unit of the printed number, for axes; may be empty.
    :param text: formats the printed number with its unit; `brief` with fewer digits.
    :param change: formats a difference of `value`, with sign and without unit; `change_unit` is appended to the mean.
    :param widest: widest confidence interval of a difference whose ends are still printed.
    """

    name: str
    value: Callable[[Subject], float | None]
    short: str = ""
    transform: Transform = IDENTITY
    lower_is_better: bool = True
    unit: str = ""
    text: Callable[[float], str] = formats.decimals
    brief: Callable[[float], str] = formats.decimals
    change: Callable[[float], str] = lambda difference: formats.decimals(difference, sign=True)
    change_unit: str = ""
    widest: float = math.inf

    def of(self, value: Callable[[Other], float | None], name: str = "") -> Metric[Other]:
        """The same metric for another kind of subject, optionally under another name."""
        mine: Any = self
        return replace(mine, value=value, name=name or self.name)

    @property
    def harm(self) -> int:
        """Sign of a difference for the worse."""
        return 1 if self.lower_is_better else -1

    @property
    def logarithmic(self) -> bool:
        """Whether means are taken over logarithms; the printed number then belongs on a logarithmic axis."""
        return self.transform is LOGARITHM

    def number(self, subject: Subject) -> float | None:
        """The number to print; `None` if the subject has none."""
        value = self.value(subject)
        return None if value is None else self.transform.printed(value)

    def say(self, subject: Subject) -> str:
        """The number of a subject as text; `—` if it has none."""
        return self.say_value(self.value(subject))

    def say_value(self, value: float | None) -> str:
        """A value, or a mean of values, as text; `—` for `None`."""
        return formats.NOTHING if value is None else self.text(self.transform.printed(value))

    def say_briefly(self, value: float | None) -> str:
        """A value with fewer digits."""
        return formats.NOTHING if value is None else self.brief(self.transform.printed(value))

    def say_change(self, difference: float) -> str:
        """A difference of values with its unit: `−25.3%`."""
        return f"{self.change(difference)}{self.change_unit}"

    def badness(self, subject: Subject) -> float:
        """Sort key with the best first; infinity if the subject has no number."""
        value = self.value(subject)
        return math.inf if value is None else self.harm * value
