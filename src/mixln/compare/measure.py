"""What trials are compared by: the perplexity of language models, the accuracy of image classifiers.

One :class:`Measure` holds all that differs between the two in statistics, verdict, tables and figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixln.compare import words
from mixln.compare.results import Cell, Floor, Interval
from mixln.runs.outcome import perplexity
from mixln.runs.trials import TrialResult

Measured = TrialResult | Cell | Floor


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of a trial, or its mean over trials.

    :param short: its name where space is scarce.
    :param of: the number, `None` where there is none.
    :param text: the number as the field writes it.
    """

    name: str
    short: str
    of: Callable[[Measured], float | None]
    text: Callable[[float], str]

    def say(self, measured: Measured) -> str:
        """The number as text, `—` for none."""
        value = self.of(measured)
        return words.NOTHING if value is None else self.text(value)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What trials are ranked by. Means, differences and intervals are taken of `of`, and shown as `shown` says.

    :param name: what is shown, for example `perplexity`.
    :param of: what is averaged: the loss in nats per token, or the share of images that are right.
    :param unit: of the shown number; empty for none.
    :param shown: that as the number that is shown: e to the power of it, or percent.
    :param text: the shown number with three or four digits, `brief` with one decimal.
    :param change: a difference of `of` as the text of an interval's end; `change_unit` follows the mean.
    :param said: what the differences are, in the words of a caption.
    :param undecided: width of an interval from which it is only said to decide nothing.
    :param extent: what the loss is taken over; `rate` is how many a second, where space is scarce.
    :param material: what it is trained on.
    :param training_loss: what a reader must know of the training loss beside the held-out one.
    :param floor: the simplest model, which every trial must beat; `floor_knows` says what it knows, `floor_learnt` what a trial
        whose loss is as high has learnt.
    :param stalled: what a trial is that is no better; `{}` is the floor's number.
    :param figures: what else is said of each placement and trial.
    :param explained: the measure, for those who read a figure.
    """

    name: str
    of: Callable[[Measured], float | None]
    shown: Callable[[float], float]
    text: Callable[[float], str]
    brief: Callable[[float], str]
    lower_is_better: bool
    logarithmic: bool
    unit: str
    change: Callable[[float], str]
    change_unit: str
    said: str
    undecided: float
    extent: Literal["token", "image"]
    rate: str
    material: str
    training_loss: str
    floor: str
    floor_knows: str
    floor_learnt: str
    stalled: str
    figures: tuple[Figure, ...]
    explained: str

    @property
    def amount(self) -> str:
        """What a training sees, in the plural."""
        return f"{self.extent}s"

    @property
    def direction(self) -> str:
        """Which numbers are better."""
        return "lower" if self.lower_is_better else "higher"

    @property
    def best(self) -> str:
        """The end of the scale at which the winner stands."""
        return "lowest" if self.lower_is_better else "highest"

    def number(self, measured: Measured) -> float | None:
        """The shown number, `None` where there is none."""
        value = self.of(measured)
        return None if value is None else self.shown(value)

    def say(self, measured: Measured) -> str:
        """The shown number as text, `—` for none; of a mean, how many stalled beside it."""
        value = self.number(measured)
        return words.NOTHING if value is None else self.text(value) + _beside(measured)

    def say_briefly(self, measured: Measured) -> str:
        """The same with one decimal."""
        value = self.number(measured)
        return words.NOTHING if value is None else self.brief(value) + _beside(measured)

    def badness(self, measured: Measured) -> float:
        """Sorts the best first; infinity where there is no number."""
        value = self.of(measured)
        return math.inf if value is None else value if self.lower_is_better else -value

    def worse(self, interval: Interval) -> Interval:
        """A difference as how much worse it is, whichever end of the scale is better."""
        if self.lower_is_better:
            return interval
        low, high = (None if end is None else -end for end in (interval.high, interval.low))
        return Interval(mean=-interval.mean, low=low, high=high, pairs=interval.pairs)

    def difference(self, interval: Interval) -> tuple[str, ...]:
        """`−25.3%` and `[−31.0, −19.1]`: a difference with its 95% interval, in pieces that may stand on their own lines."""
        mean = self.change(interval.mean) + self.change_unit
        if interval.low is None or interval.high is None:
            return mean, f"(n = {interval.pairs},", "no interval)"
        if interval.pointlike:
            return mean, f"(n = {interval.pairs},", "all equal)"
        if interval.high - interval.low > self.undecided:
            return mean, "[undecided]"
        return mean, f"[{self.change(interval.low)}, {self.change(interval.high)}]"


def _beside(measured: Measured) -> str:
    return measured.beside if isinstance(measured, Cell) else ""


def _figure(name: str) -> Callable[[Measured], float | None]:
    return lambda measured: measured.figures.get(name)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


LANGUAGE = Measure(
    name="perplexity",
    of=lambda measured: measured.loss,
    shown=perplexity,
    text=words.perplexity,
    brief=lambda value: f"{value:.1f}",
    lower_is_better=True,
    logarithmic=True,
    unit="",
    change=words.percent,
    change_unit="%",
    said="percent of perplexity",
    undecided=5.0,  # nats per token: a factor of 148 in perplexity
    extent="token",
    rate="tok/s",
    material="text",
    training_loss="",
    floor="unigram model",
    floor_knows="knows only how frequent each token is",
    floor_learnt="no more than how frequent each token is",
    stalled="no better than word frequencies alone (unigram perplexity {})",
    figures=(
        Figure(
            name="bits per byte",
            short="bits/\nbyte",
            of=lambda measured: measured.bits_per_byte,
            text=lambda value: f"{value:.3f}",
        ),
    ),
    explained="e to the power of the loss",
)
VISION = Measure(
    name="accuracy",
    of=_figure("accuracy"),
    shown=lambda share: 100 * share,
    text=_percent,
    brief=lambda value: f"{value:.1f}%",
    lower_is_better=False,
    logarithmic=False,
    unit="%",
    change=words.points,
    change_unit=" points",
    said="percentage points of accuracy",
    undecided=math.inf,
    extent="image",
    rate="img/s",
    material="images",
    training_loss=", of changed images and smoothed or mixed labels where that is asked for, and then mostly higher",
    floor="most frequent class",
    floor_knows="is what always naming it gives",
    floor_learnt="no more than how frequent each class is",
    stalled="no better than naming the most frequent class (accuracy {}), or by less than 2% of what that gets wrong",
    figures=(
        Figure(name="top-5 accuracy", short="top-5", of=_figure("top5"), text=lambda share: _percent(100 * share)),
        Figure(name="calibration error", short="ECE", of=_figure("calibration"), text=lambda value: f"{value:.3f}"),
        Figure(name="loss", short="loss", of=lambda measured: measured.loss, text=lambda value: f"{value:.3f}"),
    ),
    explained="share of the images whose most probable class is right",
)
