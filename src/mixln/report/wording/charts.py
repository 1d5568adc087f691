"""Words that several charts share: titles with captions, labels of lines and axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixln import formats

EMPTY = "Nothing was recorded."
STEPS, LAYER, LEARNING_RATE = "optimizer steps", "layer", "learning rate"
GRADIENT_NORM = "gradient norm (L2)"
ATTENTION, FEED_FORWARD = "attention", "feed-forward"
CROSS = "✕\u00a0"
"""The cross, which stays on the line of the word behind it."""


@dataclass(frozen=True, kw_only=True)
class ChartText:
    """The words around one figure.

    :param caption: what it shows, in which unit, and how to read it.
    :param description: what a reader who cannot see it is told.
    """

    title: str
    caption: str
    description: str


def seed(name: str, number: int) -> str:
    """One training of a placement."""
    return f"{name}, seed {number}"


def interval(name: str) -> str:
    """The line of an interval."""
    return f"{name}, 95% interval"


def mean(name: str) -> str:
    """A mean over seeds."""
    return f"{name}, mean"


def diverged(name: str, number: int, step: int) -> str:
    """Where a training diverged."""
    return f"{seed(name, number)}: diverged at step {step:,}"


def at_rate(rate: float) -> str:
    """A panel or line of one learning rate."""
    return f"{LEARNING_RATE} {formats.learning_rate(rate)}"


def bent(panels: Sequence[tuple[str, float]]) -> str:
    """What the reader of a chart must know of its bent axes, as sentences that follow another one.

    :param panels: title of each panel, and the value within which its vertical axis is linear; 0 if it is linear throughout.
    """
    notes = {_bent(bend) for _, bend in panels}
    if len(notes) == 1:
        (note,) = notes
        return f" The{note[3:]}." if note else ""
    return "".join(f" In “{title}” {_bent(bend)}." for title, bend in panels if bend)


def _bent(bend: float) -> str:
    ends = f"−{formats.tick(bend)} and {formats.tick(bend)}"
    return f"the vertical axis is linear between {ends}, and logarithmic beyond" if bend else ""
