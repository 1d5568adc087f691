"""The plan of a recipe: its comparisons, and the compute and memory that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mixln.planning.settings import DEVICES, UTILISATION
from mixln.recipes.deviations import RecipeVariant, changed
from mixln.recipes.evidence import PACKAGE
from mixln.recipes.plan import RunNeeds, beside, followed, needs, trained_run
from mixln.recipes.records import Recipe, Run, Scale
from mixln.report.wording.phrases import plural
from mixln.report.wording.reproduction import smaller, trained

DEVICE = DEVICES["h100"].title
NO_TRAINING = "no training: the measured losses are recomputed as in the authors' code"


def described(
    recipe: Recipe,
    runs: tuple[Run, ...],
    scale: Scale,
    variants: tuple[RecipeVariant, ...] = (),
    *,
    done: Callable[[Run], int],
) -> Iterator[str]:
    """The lines of the plan.

    :param variants: variants that are also run.
    :param done: run → number of its trials that have already ended.
    """
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.whole_reading
    variant_runs = {
        variant: [made for run in runs if (made := beside(run, changed(run, variant))) is not None]
        for variant in variants
    }
    every = [*runs, *(run for new in variant_runs.values() for run in new)]
    if scale == "cpu":
        yield _smaller(recipe, runs, every)
    required = {id(run): needs(run) for run in every} if scale == "paper" else {}
    yield from _runs(runs, required, done)
    for variant, new in variant_runs.items():
        yield f"With the authors' code, {variant.name}: {variant.what}"
        yield from _runs(new, required, done)
        if not new:
            yield NO_TRAINING
    if scale == "paper":
        yield from _total(every, required, done)
    for name, model in recipe.models(scale).items():
        packaged = f"the checkpoint in the package {model.removeprefix(PACKAGE).partition('/')[0].replace('_', '-')}"
        yield f"{name}: diagnosis of {packaged if model.startswith(PACKAGE) else model}"


def comparison(run: Run, done: int) -> str:
    """One comparison of a plan.

    :param done: number of its trials that have already ended.
    """
    state = "pre-trained" if run.diagnosed or followed(run) else "done"
    ended = f", {done} of them {state}" if done else ""
    return f"{trained(trained_run(run))}: {plural(run.trials, 'trial')}{ended}"


def _smaller(recipe: Recipe, runs: Sequence[Run], every: Sequence[Run]) -> str:
    longer = sum(run.trials for run in every) / sum(run.trials for run in runs) if runs else 1
    minutes = plural(round(recipe.minutes * longer), "minute")
    return f"{smaller(recipe)} About {minutes} on two cores in total, less if part of it is already done."


def _runs(runs: Sequence[Run], required: dict[int, RunNeeds], done: Callable[[Run], int]) -> Iterator[str]:
    for run in runs:
        yield comparison(run, done(run))
        if id(run) in required:
            yield f"  {_needs(required[id(run)])}"


def _needs(required: RunNeeds) -> str:
    need = required.estimate
    hours = f"{need.hours:,.0f} hours of one {DEVICE} at {UTILISATION:.0%} of its peak"
    if need.per_image is not None:
        return (
            f"{need.parameters / 1e6:.1f} million parameters, {need.steps:,} steps of {need.images:,} images each; "
            f"{need.per_image / 1e9:.1f} GFLOPs per image, {need.flops:.1e} in total: {hours}, unless data loading is slower; "
            f"{_fit(required)}"
        )
    assert need.tokens is not None
    return (
        f"{need.parameters / 1e6:,.0f} million parameters, {need.tokens / 1e9:,.1f} billion tokens each; {need.flops:.1e} FLOPs in total: "
        f"{hours}; {_fit(required)}"
    )


def _fit(required: RunNeeds) -> str:
    """Whether a model fits on a device, and otherwise the remedies."""
    if required.memory is None or required.available is None:
        return "one trial per GPU"
    fit = f"{required.memory / 1e9:.0f} GB of a device's {required.available / 1e9:.0f}"
    if required.fits:
        return f"{fit}, one trial per GPU"
    return f"{fit}, so it does not fit: {', or '.join(required.remedies) or 'not on eight devices either'}"


def _total(every: Sequence[Run], required: dict[int, RunNeeds], done: Callable[[Run], int]) -> Iterator[str]:
    hours = sum(required[id(run)].estimate.hours for run in every)
    left = sum(required[id(run)].estimate.hours * (1 - done(run) / run.trials) for run in every)
    if len(every) > 1 or left < hours:
        remaining = f", of which {left:,.0f} remain" if left < hours else ""
        yield f"Total: {hours:,.0f} hours of one {DEVICE}{remaining}."
    if any(run.diagnosed or followed(run) for run in every):
        yield "Not included: the steps after pre-training."
