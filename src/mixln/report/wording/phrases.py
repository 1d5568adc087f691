"""Phrases that several sentences, tables and captions share."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from mixln import formats
from mixln.compare.findings import Subject
from mixln.compare.results import Cell, Interval
from mixln.metrics import Metric

Pieces = tuple[str, ...]
"""Text of one table cell, in pieces that may be put on separate lines."""
NO_CLAIM = "With a single seed there is no confidence interval, and no claim can be made."
NOT_SIGNIFICANT = "not significant over these seeds"


def name(subject: Subject) -> str:
    """Title of a placement, followed by its specification if that has an argument: `Mix-LN (mix(0.25))`."""
    title, placement = subject.title, subject.placement
    return f"{title} ({placement})" if "(" in placement and title != placement else title


def listed(items: Iterable[object]) -> str:
    """`a, b, c`."""
    return ", ".join(map(str, items))


def joined(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def plural(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def difference(metric: Metric[Any], interval: Interval) -> Pieces:
    """`−25.3%` and `[−31.0, −19.1]`: a difference with its 95% interval."""
    mean = metric.say_change(interval.mean)
    if interval.low is None or interval.high is None:
        return mean, f"(n = {interval.pairs},", "no interval)"
    if interval.pointlike:
        return mean, f"(n = {interval.pairs},", "all equal)"
    if interval.high - interval.low > metric.widest:
        return mean, "[very wide]"
    return mean, f"[{metric.change(interval.low)}, {metric.change(interval.high)}]"


def differs(metric: Metric[Any], interval: Interval) -> str:
    """:func:`difference` as one text, for sentences."""
    return " ".join(difference(metric, interval))


def beside(stalled: int) -> str:
    """Suffix of a mean over the seeds that trained, if others stalled: ` / stalled`, ` / 2 stalled`."""
    return "" if not stalled else " / stalled" if stalled == 1 else f" / {stalled} stalled"


def mean(metric: Metric[Any], cell: Cell) -> str:
    """The mean of a cell, followed by the number of stalled seeds if others trained."""
    value = metric.value(cell)
    return metric.say_value(value) + (beside(cell.stalled_beside) if value is not None else "")


def ended(finished: int, seeds: int, stalled: int, diverged: int, failed: int, *, diverged_at: Sequence[int]) -> Pieces:
    """How trials ended: `2 of 2`, or `1 of 2,` and `1 diverged at step 40`.

    :param diverged_at: the optimizer steps at which the diverged trials ended.
    """
    pieces = [f"{finished} of {seeds}"] if finished or not (stalled or diverged or failed) else []
    if stalled:
        pieces.append(f"{stalled} stalled")
    if diverged:
        pieces.append(divergence(diverged, diverged_at))
    if failed:
        pieces.append(f"{failed} failed")
    return (*(piece + "," for piece in pieces[:-1]), pieces[-1])


def divergence(count: int, steps: Sequence[int]) -> str:
    """`1 diverged at step 40`, `2 diverged at steps 40–70`."""
    if not steps:
        return f"{count} diverged"
    low, high = min(steps), max(steps)
    return f"{count} diverged at step{f' {low:,}' if low == high else f's {low:,}–{high:,}'}"


def layers(first: int, last: int) -> str:
    """`layer 3`, or `layers 3 to 5`."""
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def extended(folder: str, axis: str) -> str:
    """Command that extends an experiment; all other settings are read from its folder."""
    return f"`mixln compare --out {shlex.quote(folder)} {axis} --extend`"


REWARD_HACKING = (
    "rose while the policy itself ranked fewer held-out pairs correctly: a sign of reward hacking "
    "(over-optimisation of the reward model)."
)
TUNED = "each at its best learning rate"


def capitalised(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def rates(values: Iterable[float]) -> str:
    """Learning rates as command-line arguments: `0.0003 0.001`."""
    return " ".join(map(repr, values))


def at_rate(learning_rate: float) -> str:
    """`at learning rate 0.001`."""
    return f"at learning rate {formats.learning_rate(learning_rate)}"
