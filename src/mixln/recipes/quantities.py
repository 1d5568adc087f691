"""The quantities that recipes compare: each is a number from a trial, its diagnosis, or its later steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Any, Literal

from mixln import formats
from mixln.compare.metrics import ACCURACY, PERPLEXITY
from mixln.compare.results import AVERAGE, REWARD
from mixln.evaluation.settings import TABLE_2
from mixln.metrics import LOGARITHM, Metric
from mixln.runs.trials import TrialResult

if TYPE_CHECKING:
    from mixln.diagnostics.results import Diagnosis
    from mixln.runs.profile import LayerProfile


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All measurements of one model, trained here or existing.

    :param figures: results of the steps after pre-training, by name.
    :param chance: chance levels of the `figures`.
    :param parameters: number of parameters of a preset, millions.
    """

    result: TrialResult | None = None
    diagnosis: Diagnosis | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    parameters: float | None = None

    @property
    def trained(self) -> bool:
        """Whether the training neither diverged nor stalled; true for existing models."""
        return self.result is None or self.result.status == "finished"


SeedPolicy = Literal["known", "survival", "trained", "start"]
"""Treatment of seeds that diverged or stalled. `survival`: a placement that trained at all seeds is ahead of one that trained at none;
anything between is undecided. `trained`: they are omitted. `known`: they count if no seed trained, and if only some trained the ordering
is undecided. `start`: the quantity is measured at the start of the training, and all seeds count."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A quantity that a recipe compares.

    :param metric: the quantity; means, differences and intervals over seeds are computed from its value.
    :param chance: its chance level on the metric's scale; `None` if there is none or it is unknown.
    """

    metric: Metric[Evidence]
    seeds: SeedPolicy = "known"
    chance: Callable[[Evidence], float | None] = lambda evidence: None


def _loss(evidence: Evidence) -> float | None:
    return evidence.result.loss if evidence.result else None


def _course(evidence: Evidence) -> float | None:
    result = evidence.result
    if result is None or result.loss is None:
        return None
    return mean(loss for _, loss in result.eval_curve)


def _accuracy(evidence: Evidence) -> float | None:
    return evidence.result.figures.get("accuracy") if evidence.result else None


def _figure(name: str) -> Callable[[Evidence], float | None]:
    return lambda evidence: evidence.figures.get(name)


def _chance(name: str) -> Callable[[Evidence], float | None]:
    return lambda evidence: evidence.chance.get(name)


def _deep(values: Sequence[float]) -> Sequence[float]:
    return values[len(values) // 2 :]


def _early(values: Sequence[float]) -> Sequence[float]:
    return values[: len(values) // 2]


def _deep_mean(values: Sequence[float] | None, last: int = 0) -> float | None:
    """Mean over the deeper half of the layers without the `last` ones."""
    return None if values is None else mean(_deep(values)[: len(_deep(values)) - last])


def _angles(evidence: Evidence) -> list[float] | None:
    """The angular distance between input and output of each layer, fraction of π."""
    return None if evidence.diagnosis is None else [row[0] for row in evidence.diagnosis.angular.distance]


def drops(evidence: Evidence) -> list[float] | None:
    """The deterioration of the model without each layer, for the loss in nats per token."""
    diagnosis = evidence.diagnosis
    if diagnosis is None or diagnosis.drops is None:
        return None
    return [diagnosis.drops.harm * drop.change for drop in diagnosis.drops.skipped]


def gradients(evidence: Evidence) -> list[float] | None:
    """The gradient norm of each layer (attention and feed-forward together) at the first step."""
    profiles: Sequence[LayerProfile] = evidence.result.gradient_norms if evidence.result else ()
    if not profiles:
        return None
    pairs = zip(profiles[0].attention, profiles[0].feed_forward, strict=True)
    return [math.hypot(a or 0.0, f or 0.0) for a, f in pairs]


def _contrast(values: Sequence[float] | None) -> float | None:
    """ln(mean over the deeper half / mean over the earlier half); `None` if a mean is not positive."""
    if values is None or min(mean(_early(values)), mean(_deep(values))) <= 0:
        return None
    return math.log(mean(_deep(values)) / mean(_early(values)))


def _unevenness(values: Sequence[float] | None) -> float | None:
    if values is None or min(values) <= 0:
        return None
    return pstdev([math.log(value) for value in values])


_CONTRAST: dict[str, Any] = {
    "lower_is_better": False,
    "transform": LOGARITHM,
    "text": lambda value: f"{value:.3g}",
    "change": formats.factor,
    "change_unit": " times",
}
QUANTITIES: dict[str, Quantity] = {
    quantity.metric.name: quantity
    for quantity in (
        Quantity(metric=PERPLEXITY.of(_loss), seeds="survival"),
        Quantity(metric=PERPLEXITY.of(_course, "perplexity-over-course"), seeds="survival"),
        Quantity(metric=ACCURACY.of(_accuracy), seeds="survival"),
        Quantity(metric=ACCURACY.of(_figure(AVERAGE), "mean-task-accuracy"), chance=_chance(AVERAGE)),
        *(Quantity(metric=ACCURACY.of(_figure(task), f"accuracy-{task}"), chance=_chance(task)) for task in TABLE_2),
        Quantity(metric=Metric(name="final-reward", value=_figure(REWARD), lower_is_better=False)),
        Quantity(
            metric=Metric(
                name="deep-angle",
                value=lambda evidence: _deep_mean(_angles(evidence), last=2),
                lower_is_better=False,
            ),
            seeds="trained",
        ),
        Quantity(
            metric=Metric(name="angle-contrast", value=lambda evidence: _contrast(_angles(evidence)), **_CONTRAST),
            seeds="trained",
        ),
        Quantity(
            metric=Metric(name="deep-drop", value=lambda evidence: _deep_mean(drops(evidence)), lower_is_better=False),
            seeds="trained",
        ),
        Quantity(
            metric=Metric(name="drop-contrast", value=lambda evidence: _contrast(drops(evidence)), **_CONTRAST),
            seeds="trained",
        ),
        Quantity(
            metric=Metric(name="gradient-contrast", value=lambda evidence: _contrast(gradients(evidence)), **_CONTRAST),
            seeds="start",
        ),
        Quantity(
            metric=Metric(name="gradient-unevenness", value=lambda evidence: _unevenness(gradients(evidence))),
            seeds="start",
        ),
        Quantity(
            metric=Metric(
                name="parameters", value=lambda evidence: evidence.parameters, text=lambda value: f"{value:,.1f}"
            )
        ),
    )
}
"""Quantities by name. `deep`: mean over the deeper half of the layers (for angles without the last two layers); `contrast`: ratio of the
deeper to the earlier half; `unevenness`: standard deviation over layers of the natural logarithms."""
