"""Metrics of a comparison's trials, and the ranking metric of each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixln import formats
from mixln.compare.results import Cell, FrequencyBaseline
from mixln.metrics import LOGARITHM, SHARE, Metric
from mixln.runs.trials import TrialResult

Measured = TrialResult | Cell | FrequencyBaseline
Per = Literal["token", "image"]
"""Unit over which a loss is averaged."""


def _figure(name: str) -> Callable[[Measured], float | None]:
    return lambda measured: measured.figures.get(name)


def _loss(measured: Measured) -> float | None:
    return measured.loss


def _bits_per_byte(measured: Measured) -> float | None:
    return measured.bits_per_byte


PERPLEXITY: Metric[Measured] = Metric(
    name="perplexity",
    value=_loss,
    transform=LOGARITHM,
    text=formats.perplexity,
    brief=lambda value: f"{value:.1f}",
    change=formats.percent_change,
    change_unit="%",
    widest=5.0,  # nats per token: a factor of 148 in perplexity
)
BITS_PER_BYTE: Metric[Measured] = Metric(name="bits per byte", short="bits/\nbyte", value=_bits_per_byte)
LOSS: Metric[Measured] = Metric(name="loss", value=_loss)
ACCURACY: Metric[Measured] = Metric(
    name="accuracy",
    value=_figure("accuracy"),
    transform=SHARE,
    lower_is_better=False,
    unit="%",
    text=formats.percent,
    brief=lambda value: formats.percent(value, 1),
    change=formats.points,
    change_unit=" points",
)
TOP5: Metric[Measured] = Metric(
    name="top-5 accuracy",
    short="top-5",
    value=_figure("top5"),
    transform=SHARE,
    lower_is_better=False,
    text=formats.percent,
)
CALIBRATION: Metric[Measured] = Metric(name="calibration error", short="ECE", value=_figure("calibration"))


@dataclass(frozen=True, kw_only=True)
class TaskMetrics:
    """The metrics of one task.

    :param ranking: metric that orders the placements.
    :param beside: further metrics that are shown.
    :param per: unit over which the loss is averaged.
    """

    ranking: Metric[Measured]
    beside: tuple[Metric[Measured], ...]
    per: Per


LANGUAGE = TaskMetrics(ranking=PERPLEXITY, beside=(BITS_PER_BYTE,), per="token")
VISION = TaskMetrics(ranking=ACCURACY, beside=(TOP5, CALIBRATION, LOSS), per="image")
