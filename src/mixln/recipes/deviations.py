"""Deviations of the published code from its paper. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mixln.compare.settings import CompareSettings, GridSettings
from mixln.errors import SettingsError, unknown
from mixln.recipes.records import Recipe, Run
from mixln.runs.trials import TrialResult

LANGUAGE = "language"
"""Task of the published code."""
COUNTED = {"perplexity", "perplexity-over-course"}
"""Quantities that are computed from a held-out loss."""


def _embedding(settings: CompareSettings) -> CompareSettings:
    if "scaled-embed" in (settings.init or ""):
        return settings
    return replace(settings, init=f"embedding(0.632)+{settings.init or 'normal'}")


def _bfloat16(settings: CompareSettings) -> CompareSettings:
    return replace(settings, training=replace(settings.training, weights="bfloat16"))


def _unclipped(settings: CompareSettings) -> CompareSettings:
    return replace(settings, training=replace(settings.training, max_gradient_norm=0.0))


def _deepnorm(settings: CompareSettings) -> CompareSettings:
    placements = tuple(FIXED_DEEPNORM if name == "deepnorm" else name for name in settings.placements)
    return replace(settings, placements=placements)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A deviation of the published code from its paper.

    :param what: description of the code's behaviour, and of the behaviour without the deviation.
    :param apply: changes the settings.
    :param task: the task whose settings it changes.
    :param counts: maps a correct loss to the one that the code reports; `None` if it reports the correct one.
    """

    name: str
    what: str
    apply: Callable[[Any], GridSettings] = lambda settings: settings
    counts: Callable[[float], float] | None = None
    task: str = LANGUAGE


FIXED_DEEPNORM = "deepnorm(2.828)"
"""α = (2 · 32)^(1/4), the value for 32 layers."""
BATCHES = 600
"""Approximate number of batches in an evaluation of the published code; dividing by n + 1 makes a perplexity of 20 0.5% too low."""
DEVIATIONS: dict[str, Deviation] = {
    deviation.name: deviation
    for deviation in (
        Deviation(
            name="embedding",
            what="embeddings are initialised with a standard deviation of 0.632 instead of 0.02; all placements, including DeepNorm, have "
            "the same initialisation",
            apply=_embedding,
        ),
        Deviation(
            name="bfloat16",
            what="weights, gradients and Adam's moments are bfloat16 instead of float32",
            apply=_bfloat16,
        ),
        Deviation(
            name="clipping",
            what="gradients are not clipped, as in the authors' scripts (--grad_clipping 0.0), instead of being clipped to norm 1",
            apply=_unclipped,
        ),
        Deviation(
            name="evaluation",
            what=f"the evaluation divides the sum of the losses of n batches by n + 1 instead of n (n is about {BATCHES})",
            counts=lambda loss: loss * BATCHES / (BATCHES + 1),
        ),
        Deviation(
            name="deepnorm",
            what="DeepNorm's α is 2.828, the value for 32 layers, at every depth",
            apply=_deepnorm,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class RecipeVariant:
    """A recipe with a combination of deviations; with none, the recipe as the paper describes it."""

    deviations: tuple[Deviation, ...] = ()

    @property
    def name(self) -> str:
        """For example `embedding+bfloat16`; empty without deviations."""
        return "+".join(deviation.name for deviation in self.deviations)

    @property
    def what(self) -> str:
        """Description of the deviations."""
        return "; ".join(deviation.what for deviation in self.deviations)


def variants(texts: tuple[str, ...]) -> tuple[RecipeVariant, ...]:
    """One variant for each text: the name of a deviation, or several joined by `+`.

    :raises SettingsError: if a name is not known or repeated.
    """
    combinations: list[RecipeVariant] = []
    words = " ".join(texts).replace(",", " ").split()
    if texts and not words:
        raise SettingsError(f"as-published must name one of {', '.join(DEVIATIONS)}, got {texts[0]!r}")
    for text in words:
        names = text.split("+")
        for name in names:
            if name not in DEVIATIONS:
                raise SettingsError(unknown("as-published", name, DEVIATIONS))
            if names.count(name) > 1:
                raise SettingsError(f"as-published must not repeat, got {name} twice in {text}")
        variant = RecipeVariant(deviations=tuple(item for item in DEVIATIONS.values() if item.name in names))
        if variant in combinations:
            raise SettingsError(f"as-published must not repeat, got {variant.name} twice")
        combinations.append(variant)
    return tuple(combinations)


def published_name(placement: str) -> str:
    """The paper's name of a placement that a deviation may have replaced."""
    return placement.replace(FIXED_DEEPNORM, "deepnorm")


def recounted(result: TrialResult, variant: RecipeVariant) -> TrialResult:
    """The result with the losses that the published code would report."""

    def counted(loss: float) -> float:
        for deviation in variant.deviations:
            loss = deviation.counts(loss) if deviation.counts else loss
        return loss

    curve = tuple((step, counted(loss)) for step, loss in result.eval_curve)
    return replace(result, loss=None if result.loss is None else counted(result.loss), eval_curve=curve)


def changed(run: Run, variant: RecipeVariant) -> Run:
    """The run with the settings of the published code."""
    settings = run.settings
    for deviation in variant.deviations:
        if settings.task == deviation.task:
            settings = deviation.apply(settings)
    return replace(run, settings=settings)


def check(recipe: Recipe, runs: tuple[Run, ...], variant: RecipeVariant) -> None:
    """:raises SettingsError: if a deviation would have no effect on the recipe."""
    if recipe.paper != "Mix-LN" or all(run.settings.task != LANGUAGE for run in runs):
        raise SettingsError(
            "as-published applies only to the language models of the Mix-LN paper; omit it for this recipe"
        )
    judged = {ordering.quantity for ordering in recipe.orderings}
    for deviation in variant.deviations:
        trains = any(changed(run, RecipeVariant(deviations=(deviation,))) != run for run in runs)
        if not trains and not (deviation.counts and judged & COUNTED):
            raise SettingsError(f"as-published {deviation.name} has no effect on this recipe; omit it")
