"""What recipes measure: each quantity is one number of a trial, of its diagnosis, or of what became of it later."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, pstdev
from typing import TYPE_CHECKING, Literal

from mixln.compare import words
from mixln.compare.measure import LANGUAGE, VISION
from mixln.compare.results import AVERAGE
from mixln.runs.trials import TrialResult

if TYPE_CHECKING:
    from mixln.diagnostics.results import Diagnosis
    from mixln.runs.profile import LayerProfile


Scaling = Literal["itself", "natural logarithm", "hundredth"]
"""What a number that means and differences are taken of is, of the one that is printed."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one trained model, or of one that exists.

    :param figures: what the steps after its pre-training found, by name; `chance` is what guessing gives.
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


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number.

    :param of: the number, `None` where there is none. Means, differences and intervals over seeds are taken of it.
    :param seeds: what becomes of seeds that diverged or stalled. `survival`: a placement that trained at all of them is ahead of one that
        trained at none, and anything between is undecided; `trained`: they are left out; `known`: they count where no seed trained, and
        nothing is decided where some did; `start`: the number was measured before the training, and all seeds count.
    :param chance: what guessing gives, as `of` counts; `None` where nothing can be guessed, or it is not known.
    :param shown: that number as it is printed; `taken` is the way back, and `scale` says which it is.
    :param text: the printed number with its unit.
    :param change: a difference of `of` as text, with its sign; `change_unit` follows.
    """

    name: str
    of: Callable[[Evidence], float | None]
    lower_is_better: bool = True
    seeds: Literal["known", "survival", "trained", "start"] = "known"
    chance: Callable[[Evidence], float | None] = lambda evidence: None
    scale: Scaling = "itself"
    shown: Callable[[float], float] = lambda value: value
    taken: Callable[[float], float] = lambda printed: printed
    text: Callable[[float], str] = lambda value: f"{value:z.3f}".replace("-", words.MINUS)
    change: Callable[[float], str] = lambda value: f"{value:+z.3f}".replace("-", words.MINUS)
    change_unit: str = ""

    def say(self, value: float | None) -> str:
        """A number of ours as text."""
        return words.NOTHING if value is None else self.text(self.shown(value))

    def say_published(self, numbers: tuple[float | None, float | None]) -> str:
        """The difference of two printed numbers, as ours are printed."""
        first, second = numbers
        if first is None or second is None:
            return words.NOTHING
        return f"{self.change(self.taken(first) - self.taken(second))}{self.change_unit}"


def _loss(evidence: Evidence) -> float | None:
    return evidence.result.loss if evidence.result else None


def _course(evidence: Evidence) -> float | None:
    result = evidence.result
    if result is None or result.loss is None:
        return None
    return mean(loss for _, loss in result.eval_curve)  # which --as-published recounts too


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


def _ratio(value: float) -> str:
    return f"{value:.3g}"


def _factor(delta: float) -> str:
    return f"{math.exp(delta):.3g}"


_PERPLEXITY = {
    "seeds": "survival",
    "scale": "natural logarithm",
    "shown": LANGUAGE.shown,
    "taken": math.log,
    "text": LANGUAGE.text,
    "change": LANGUAGE.change,
    "change_unit": LANGUAGE.change_unit,
}
_SHARE = {
    "lower_is_better": False,
    "scale": "hundredth",
    "shown": VISION.shown,
    "taken": lambda percent: percent / 100,
    "text": VISION.text,
    "change": VISION.change,
    "change_unit": VISION.change_unit,
}
_CONTRAST = {
    "lower_is_better": False,
    "scale": "natural logarithm",
    "shown": math.exp,
    "taken": math.log,
    "text": _ratio,
    "change": _factor,
    "change_unit": " times",
}
QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity(name="perplexity", of=_loss, **_PERPLEXITY),
        Quantity(name="perplexity over the course", of=_course, **_PERPLEXITY),
        Quantity(
            name="accuracy",
            of=lambda evidence: evidence.result.figures.get("accuracy") if evidence.result else None,
            seeds="survival",
            **_SHARE,
        ),
        Quantity(name="mean accuracy of the tasks", of=_figure(AVERAGE), chance=_chance(AVERAGE), **_SHARE),
        *(
            Quantity(name=f"accuracy of {task}", of=_figure(task), chance=_chance(task), **_SHARE)
            for task in ("mmlu", "boolq", "arc_easy", "piqa", "hellaswag", "openbookqa", "winogrande")
        ),
        Quantity(name="final reward", of=_figure("rlhf reward"), lower_is_better=False),
        Quantity(
            name="angular distance of the deeper layers but the last two",
            of=lambda evidence: _deep_mean(_angles(evidence), last=2),
            seeds="trained",
            lower_is_better=False,
        ),
        Quantity(
            name="angular distance, deeper half over earlier half",
            of=lambda evidence: _contrast(_angles(evidence)),
            seeds="trained",
            **_CONTRAST,
        ),
        Quantity(
            name="performance drop of the deeper layers, nats",
            of=lambda evidence: _deep_mean(drops(evidence)),
            seeds="trained",
            lower_is_better=False,
        ),
        Quantity(
            name="performance drop, deeper half over earlier half",
            of=lambda evidence: _contrast(drops(evidence)),
            seeds="trained",
            **_CONTRAST,
        ),
        Quantity(
            name="gradient norm at the start, deeper half over earlier half",
            of=lambda evidence: _contrast(gradients(evidence)),
            seeds="start",
            **_CONTRAST,
        ),
        Quantity(
            name="unevenness of the gradient norms at the start",
            of=lambda evidence: _unevenness(gradients(evidence)),
            seeds="start",
        ),
        Quantity(
            name="parameters, millions",
            of=lambda evidence: evidence.parameters,
            text=lambda value: f"{value:,.1f}",
        ),
    )
}
