"""Where the published code of a paper does other than the paper says, each to be switched on alone; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mixln.compare.results import TrialResult
from mixln.compare.settings import CompareSettings
from mixln.errors import SettingsError, unknown
from mixln.recipes.records import Recipe, Run


def _same(settings: CompareSettings) -> CompareSettings:
    return settings


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One.

    :param what: what the code does, and what is done without it.
    :param apply: what of the settings it changes.
    :param counted: how a loss over n batches is counted.
    :param of: whether there is something for it to change.
    """

    name: str
    what: str
    of: Callable[[CompareSettings], bool] = lambda settings: True
    apply: Callable[[CompareSettings], CompareSettings] = _same
    counted: Callable[[float, int], float] = lambda loss, batches: loss


FIXED_DEEPNORM = "deepnorm(2.828)"
DEVIATIONS: dict[str, Deviation] = {
    each.name: each
    for each in (
        Deviation(
            name="embedding",
            what="embeddings start with a standard deviation of 0.632, not 0.02; all placements then have one initialisation, DeepNorm too",
            of=lambda settings: "scaled-embed" not in (settings.init or ""),
            apply=lambda settings: replace(settings, init=f"embedding(0.632)+{settings.init or 'normal'}"),
        ),
        Deviation(
            name="bfloat16",
            what="weights, gradients and Adam's moments are bfloat16, not float32",
            apply=lambda settings: replace(settings, training=replace(settings.training, weights="bfloat16")),
        ),
        Deviation(
            name="clipping",
            what="gradients are not clipped, as the authors' scripts have it (--grad_clipping 0.0); clipped at 1 without it",
            apply=lambda settings: replace(settings, training=replace(settings.training, max_gradient_norm=0.0)),
        ),
        Deviation(
            name="evaluation",
            what="the loss over n batches is their sum over n + 1, so that it comes out too low",
            counted=lambda loss, batches: loss * batches / (batches + 1),
        ),
        Deviation(
            name="deepnorm",
            what="DeepNorm's α is 2.828, right for 32 layers, whatever the depth",
            of=lambda settings: "deepnorm" in settings.placements,
            apply=lambda settings: replace(
                settings,
                placements=tuple(FIXED_DEEPNORM if name == "deepnorm" else name for name in settings.placements),
            ),
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Variant:
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


def variants(texts: tuple[str, ...]) -> tuple[Variant, ...]:
    """Of each text one: a deviation's name, or several that are joined by `+`.

    :raises SettingsError: if one is not known, or named twice.
    """
    found: list[Variant] = []
    for text in " ".join(texts).replace(",", " ").split():
        names = text.split("+")
        for name in names:
            if name not in DEVIATIONS:
                raise SettingsError(unknown("as-published", name, DEVIATIONS))
            if names.count(name) > 1:
                raise SettingsError(f"as-published must not repeat, got {name} twice in {text}")
        made = Variant(deviations=tuple(each for each in DEVIATIONS.values() if each.name in names))
        if made in found:
            raise SettingsError(f"as-published must not repeat, got {made.name} twice")
        found.append(made)
    return tuple(found)


def published_name(placement: str) -> str:
    """The placement as the paper calls it, whatever the deviations made of it."""
    return placement.replace(FIXED_DEEPNORM, "deepnorm")


def recounted(result: TrialResult, variant: Variant, batches: int) -> TrialResult:
    """The result with its loss as the published code would count it.

    :param batches: of the evaluation.
    """

    def counted(loss: float | None) -> float | None:
        for each in variant.deviations:
            loss = loss if loss is None else each.counted(loss, batches)
        return loss

    curve = tuple((step, counted(loss) or 0.0) for step, loss in result.eval_curve)
    return replace(result, loss=counted(result.loss), eval_curve=curve)


def changed(recipe: Recipe, runs: tuple[Run, ...], variant: Variant) -> tuple[Run, ...]:
    """The runs as the published code would do them.

    :raises SettingsError: if one of the deviations would change nothing.
    """
    if not variant.deviations:
        return runs
    settings = [run.settings for run in runs if isinstance(run.settings, CompareSettings)]
    if not settings or recipe.paper != "Mix-LN":
        raise SettingsError("as-published is of the code of the Mix-LN paper's language models; leave it out here")
    for each in variant.deviations:
        if not any(each.of(one) for one in settings):
            raise SettingsError(f"as-published {each.name} would change nothing in this recipe; leave it out")
    made = []
    for run in runs:
        one = run.settings
        for each in variant.deviations:
            if isinstance(one, CompareSettings) and each.of(one):
                one = each.apply(one)
        made.append(replace(run, settings=one))
    return tuple(made)
