"""Where the published code of a paper does other than the paper says; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mixln.compare.settings import CompareSettings, GridSettings
from mixln.errors import SettingsError, unknown
from mixln.recipes.records import Recipe, Run
from mixln.runs.trials import TrialResult

LANGUAGE = "language"
"""The task of the published code."""
COUNTED = {"perplexity", "perplexity-over-course"}
"""The quantities that are taken of a held-out loss."""


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
    """One.

    :param what: what the code does, and what is done without it.
    :param apply: what of the settings it changes, if anything.
    :param task: whose settings it changes.
    :param counts: how a loss is counted; `None` for as it should.
    """

    name: str
    what: str
    apply: Callable[[Any], GridSettings] = lambda settings: settings
    counts: Callable[[float], float] | None = None
    task: str = LANGUAGE


FIXED_DEEPNORM = "deepnorm(2.828)"
BATCHES = 600
"""Of an evaluation of theirs, about: what makes a perplexity of 20 half a percent too low."""
DEVIATIONS: dict[str, Deviation] = {
    each.name: each
    for each in (
        Deviation(
            name="embedding",
            what="embeddings start with a standard deviation of 0.632, not 0.02; all placements then have one initialisation, DeepNorm too",
            apply=_embedding,
        ),
        Deviation(
            name="bfloat16",
            what="weights, gradients and Adam's moments are bfloat16, not float32",
            apply=_bfloat16,
        ),
        Deviation(
            name="clipping",
            what="gradients are not clipped, as the authors' scripts have it (--grad_clipping 0.0); clipped at 1 without it",
            apply=_unclipped,
        ),
        Deviation(
            name="evaluation",
            what=f"the loss over n batches, of which their evaluation has about {BATCHES}, is their sum over n + 1",
            counts=lambda loss: loss * BATCHES / (BATCHES + 1),
        ),
        Deviation(
            name="deepnorm",
            what="DeepNorm's α is 2.828, right for 32 layers, whatever the depth",
            apply=_deepnorm,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class RecipeVariant:
    """A recipe with some deviations at once; with none, as the paper says."""

    deviations: tuple[Deviation, ...] = ()

    @property
    def name(self) -> str:
        """`embedding+bfloat16`; empty for what the paper says."""
        return "+".join(each.name for each in self.deviations)

    @property
    def what(self) -> str:
        """What is done otherwise."""
        return "; ".join(each.what for each in self.deviations)


def variants(texts: tuple[str, ...]) -> tuple[RecipeVariant, ...]:
    """Of each text one: a deviation's name, or several that are joined by `+`.

    :raises SettingsError: if one is not known, or named twice.
    """
    found: list[RecipeVariant] = []
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
        made = RecipeVariant(deviations=tuple(each for each in DEVIATIONS.values() if each.name in names))
        if made in found:
            raise SettingsError(f"as-published must not repeat, got {made.name} twice")
        found.append(made)
    return tuple(found)


def published_name(placement: str) -> str:
    """The placement as the paper calls it, whatever the deviations made of it."""
    return placement.replace(FIXED_DEEPNORM, "deepnorm")


def recounted(result: TrialResult, variant: RecipeVariant) -> TrialResult:
    """The result with its loss as the published code would count it."""

    def counted(loss: float) -> float:
        for each in variant.deviations:
            loss = each.counts(loss) if each.counts else loss
        return loss

    curve = tuple((step, counted(loss)) for step, loss in result.eval_curve)
    return replace(result, loss=None if result.loss is None else counted(result.loss), eval_curve=curve)


def changed(run: Run, variant: RecipeVariant) -> Run:
    """The run as the published code would do it."""
    settings = run.settings
    for each in variant.deviations:
        if settings.task == each.task:
            settings = each.apply(settings)
    return replace(run, settings=settings)


def check(recipe: Recipe, runs: tuple[Run, ...], variant: RecipeVariant) -> None:
    """:raises SettingsError: if one of the deviations would change nothing of a recipe."""
    if recipe.paper != "Mix-LN" or all(run.settings.task != LANGUAGE for run in runs):
        raise SettingsError("as-published is of the code of the Mix-LN paper's language models; leave it out here")
    judged = {claim.quantity for claim in recipe.orderings}
    for each in variant.deviations:
        trains = any(changed(run, RecipeVariant(deviations=(each,))) != run for run in runs)
        if not trains and not (each.counts and judged & COUNTED):
            raise SettingsError(f"as-published {each.name} would change nothing in this recipe; leave it out")
