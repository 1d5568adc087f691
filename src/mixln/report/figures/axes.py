"""Ranges and ticks of axes, the same for both plotting libraries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mixln import formats
from mixln.report.wording.charts import LAYER

Ticks = tuple[tuple[float, str], ...]

_MANTISSAS = ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
_SQUEEZED = 25.0
"""Largest ratio of the maximum to the median at which a linear axis still resolves the median."""
_LAYER_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 50, 64, 80, 100)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    :param label: the quantity and its unit.
    :param low: lower end, in the unit of the data even if the axis is logarithmic.
    :param high: upper end.
    :param bend: if not zero, the axis is linear between −bend and bend and logarithmic beyond: a value v is drawn at
        asinh(v / bend).
    :param ticks: (value, text); if empty, the plotting library chooses them.
    """

    label: str
    low: float
    high: float
    log: bool = False
    bend: float = 0.0
    ticks: Ticks = ()

    def holds(self, value: float) -> bool:
        """Whether the value is in the range."""
        return self.low <= value <= self.high

    def drawn(self, value: float) -> float:
        """The value as passed to the plotting libraries: transformed for a bent axis, which they do not have in common."""
        return math.asinh(value / self.bend) if self.bend else value

    def share(self, value: float) -> float:
        """The position of the value between the lower end (0) and the upper end (1)."""
        low, place, high = (math.log(v) if self.log else self.drawn(v) for v in (self.low, value, self.high))
        return (place - low) / (high - low)

    def inside(self, value: float | None) -> float:
        """The value clipped to the range with a margin of 3.5% of it, so that its marker is visible; `None` is at the upper end."""
        if self.log:
            inner = replace(self, log=False, low=math.log(self.low), high=math.log(self.high))
            return math.exp(inner.inside(math.log(value) if value else None))
        room = 0.035 * (self.high - self.low)
        return self.high - room if value is None else min(max(value, self.low + room), self.high - room)


def linear(label: str, values: Iterable[float], pad: float = 0.04) -> Axis:
    """A linear axis that contains all values.

    :param pad: margin at both ends, as a fraction of the range.
    """
    low, high = _range(values, (0.0, 1.0))
    room = pad * (high - low) or 0.5
    return Axis(label=label, low=low - room, high=high + room)


def logarithmic(label: str, values: Iterable[float], pad: float = 0.06) -> Axis:
    """A logarithmic axis that contains all positive values.

    :param pad: margin at both ends, as a fraction of the range of the logarithms.
    """
    low, high = _range((value for value in values if value > 0), (1.0, 10.0))
    room = (high / low) ** pad if high > low else 1.25
    low, high = low / room, high * room
    return Axis(label=label, low=low, high=high, log=True, ticks=log_ticks(low, high))


def spread(label: str, values: Iterable[float], pad: float = 0.05) -> Axis:
    """An axis that contains zero and all values; bent if the largest values would make the median invisible.

    :param pad: margin beyond nonzero ends, as a fraction of the range as drawn.
    """
    low, high = _range(values := [0.0, *values], (0.0, 0.0))
    if low == high:
        return Axis(label=label, low=-1.0, high=1.0)
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    typical = sizes[(len(sizes) - 1) // 2]
    bend = 0.0
    if sizes[-1] > _SQUEEZED * typical:
        # At most three decades below the largest value, so that tiny values do not fill the axis.
        bend = 10.0 ** math.floor(math.log10(max(typical, sizes[-1] / 1000)))
    axis = Axis(label=label, low=low, high=high, bend=bend)
    room = pad * (axis.drawn(high) - axis.drawn(low))
    low, high = (axis.drawn(end) + math.copysign(room, end) * (end != 0) for end in (low, high))
    if not bend:
        return replace(axis, low=low, high=high)
    low, high = bend * math.sinh(low), bend * math.sinh(high)
    return replace(axis, low=low, high=high, ticks=_bent_ticks(low, high, bend))


def from_zero(label: str, values: Iterable[float]) -> Axis:
    """An axis from zero to a round number that no value exceeds."""
    _, high = _range((value for value in values if value > 0), (0.0, 1.0))
    ticks = _steps(0.0, high)
    if ticks[-1] < high:
        ticks.append(ticks[1] * len(ticks))
    return Axis(label=label, low=0.0, high=float(f"{ticks[-1]:.6g}"), ticks=_named(ticks))


def log_ticks(low: float, high: float) -> Ticks:
    """About four to eight ticks at round numbers in [low, high], both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if math.log10(high / low) > 3:
        every = math.ceil((last - first) / 7)
        exponents = [exponent for exponent in range(first, last + 1) if exponent % every == 0]
        return tuple((10.0**e, formats.power(e)) for e in exponents if low <= 10.0**e <= high)
    for mantissas in _MANTISSAS:
        values = [m * 10.0**e for e in range(first, last + 1) for m in mantissas]
        ticks = [value for value in values if low <= value <= high]
        if len(ticks) >= (3 if len(mantissas) == 3 else 4):
            return _named(ticks)
    return _named(_steps(low, high))


def layers(count: int, *, halves: bool = False) -> Axis:
    """The layers of a model, from 1.

    :param halves: leaves room for points half a layer after the last.
    """
    step = next((step for step in _LAYER_STEPS if count / step <= 12), _LAYER_STEPS[-1])
    ticks = tuple((float(layer), str(layer)) for layer in range(step, count + 1, step))
    return Axis(label=LAYER, low=0.6, high=count + (0.9 if halves else 0.4), ticks=ticks)


def _bent_ticks(low: float, high: float, bend: float) -> Ticks:
    """Zero, and round numbers from the bend to both ends."""
    decades = range(math.ceil(math.log10(max(-low, high) / bend)) + 1)
    for mantissas in ((1,), (1, 3)):
        sizes = [float(f"{m * bend * 10.0**e:.6g}") for e in decades for m in mantissas]
        ticks = [value for value in (*(-size for size in reversed(sizes)), 0.0, *sizes) if low <= value <= high]
        if len(ticks) >= 5:
            break
    return tuple((value, formats.tick(value).replace("-", "−")) for value in ticks)


def _steps(low: float, high: float) -> list[float]:
    """Four to eight equidistant round numbers, for a range too narrow for decades."""
    exact = (high - low) / 4
    scale = 10.0 ** math.floor(math.log10(exact))
    step = scale * max(m for m in (1, 2, 2.5, 5) if m * scale <= exact)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _named(values: list[float]) -> Ticks:
    rounded = [float(f"{value:.6g}") for value in values]
    return tuple((value, formats.tick(value)) for value in rounded)


def _range(values: Iterable[float], otherwise: tuple[float, float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else otherwise
