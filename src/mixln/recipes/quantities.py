"""The quantities that recipes measure: each is one number of a trial, of its diagnosis, or of its later steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Any, Literal

from mixln import formats
from mixln.compare.metrics import ACCURACY, PERPLEXITY
from mixln.compare.results import AVERAGE
from mixln.metrics import LOGARITHM, Metric
from mixln.runs.trials import TrialResult

if TYPE_CHECKING:
    from mixln.diagnostics.results import Diagnosis
    from mixln.runs.profile import LayerProfile


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one trained model, or of one that exists.

    :param figures: what the steps after its pre-training found, by name; `chance` is their chance level.
    :param parameters: millions, of a preset that is only counted.
    """

    result: TrialResult | None = None
    diagnosis: Diagnosis | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    parameters: float | None = None

    @property
    def trained(self) -> bool:
        """Whether it neither diverged nor stalled; a model that exists did not."""
        return self.result is None or self.result.status == "finished"


SeedPolicy = Literal["known", "survival", "trained", "start"]
"""How seeds that diverged or stalled count. `survival`: a placement that trained at all seeds is ahead of one that trained at none, and
anything between is undecided; `trained`: they are left out; `known`: they count where no seed trained, and nothing is decided where some
did; `start`: the number was measured before the training, and all seeds count."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number that a recipe compares.

    :param metric: the number; means, differences and intervals over seeds are taken of its value.
    :param chance: its chance level, as the metric averages it; `None` where it has none, or that is not known.
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
    return mean(loss for _, loss in result.eval_curve)  # which --as-published recounts too


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
    """Mean of the deeper half, without the `last` ones."""
    return None if values is None else mean(_deep(values)[: len(_deep(values)) - last])


def _angles(evidence: Evidence) -> list[float] | None:
    """Of each layer, the angular distance between its input and its output."""
    return None if evidence.diagnosis is None else [row[0] for row in evidence.diagnosis.angular.distance]


def drops(evidence: Evidence) -> list[float] | None:
    """Of each layer, how much worse the model is without it; of the loss in nats per token."""
    diagnosis = evidence.diagnosis
    if diagnosis is None or diagnosis.drops is None:
        return None
    return [diagnosis.drops.harm * drop.change for drop in diagnosis.drops.skipped]


def gradients(evidence: Evidence) -> list[float] | None:
    """Of each layer, the norm of its gradient at the first step, attention and feed-forward together."""
    profiles: Sequence[LayerProfile] = evidence.result.gradient_norms if evidence.result else ()
    if not profiles:
        return None
    pairs = zip(profiles[0].attention, profiles[0].feed_forward, strict=True)
    return [math.hypot(a or 0.0, f or 0.0) for a, f in pairs]


def _contrast(values: Sequence[float] | None) -> float | None:
    """Natural logarithm of the mean of the deeper half over that of the earlier one."""
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
TASKS = ("mmlu", "boolq", "arc_easy", "piqa", "hellaswag", "openbookqa", "winogrande")
QUANTITIES: dict[str, Quantity] = {
    quantity.metric.name: quantity
    for quantity in (
        Quantity(metric=PERPLEXITY.of(_loss), seeds="survival"),
        Quantity(metric=PERPLEXITY.of(_course, "perplexity-over-course"), seeds="survival"),
        Quantity(metric=ACCURACY.of(_accuracy), seeds="survival"),
        Quantity(metric=ACCURACY.of(_figure(AVERAGE), "mean-task-accuracy"), chance=_chance(AVERAGE)),
        *(Quantity(metric=ACCURACY.of(_figure(task), f"accuracy-{task}"), chance=_chance(task)) for task in TASKS),
        Quantity(metric=Metric(name="final-reward", value=_figure("rlhf reward"), lower_is_better=False)),
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
"""By name: of layers, `deep` means the mean over the deeper half of the layers (of angles but the last two), `contrast` the deeper half
over the earlier half, `unevenness` the standard deviation of the natural logarithms over layers."""
