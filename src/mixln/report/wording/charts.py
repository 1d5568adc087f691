"""Titles, captions and labels shared by several charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixln import formats

EMPTY = "Nothing was recorded."
STEPS, LAYER, LEARNING_RATE = "optimizer steps", "layer", "learning rate"
GRADIENT_NORM = "gradient norm (L2)"
ATTENTION, FEED_FORWARD = "attention", "feed-forward"
CROSS = "✕\u00a0"
"""A cross and a no-break space, which keeps it on the line of the next word."""


@dataclass(frozen=True, kw_only=True)
class ChartText:
    """The text of one figure.

    :param caption: quantity, unit, and how to read the figure.
    :param description: alternative text for readers who cannot see it.
    """

    title: str
    caption: str
    description: str


def seed(name: str, number: int) -> str:
    """Label of a trial: a placement at one seed."""
    return f"{name}, seed {number}"


def interval(name: str) -> str:
    """Label of an interval."""
    return f"{name}, 95% interval"


def mean(name: str) -> str:
    """Label of a mean over seeds."""
    return f"{name}, mean"


def diverged(name: str, number: int, step: int) -> str:
    """Label of the point at which a trial diverged."""
    return f"{seed(name, number)}: diverged at step {step:,}"


def at_rate(rate: float) -> str:
    """Label of a panel or line for one learning rate."""
    return f"{LEARNING_RATE} {formats.learning_rate(rate)}"


def bent(panels: Sequence[tuple[str, float]]) -> str:
    """Sentences on bent axes (linear around zero, logarithmic beyond), to append to a caption.

    :param panels: title of each panel, and the value up to which its vertical axis is linear; 0 if it is linear throughout.
    """
    notes = {_bent(bend) for _, bend in panels}
    if len(notes) == 1:
        (note,) = notes
        return f" The{note[3:]}." if note else ""
    return "".join(f" In “{title}” {_bent(bend)}." for title, bend in panels if bend)


def _bent(bend: float) -> str:
    ends = f"−{formats.tick(bend)} and {formats.tick(bend)}"
    return f"the vertical axis is linear between {ends}, and logarithmic beyond" if bend else ""
