"""The plan of a recipe: what it is, what it trains, and what that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mixln.planning.settings import DEVICES, UTILISATION
from mixln.recipes.deviations import RecipeVariant, changed
from mixln.recipes.evidence import PACKAGE
from mixln.recipes.plan import RunNeeds, beside, followed, needs, trained_run
from mixln.recipes.records import Recipe, Run, Scale
from mixln.report.wording.phrases import plural
from mixln.report.wording.reproduction import trained

DEVICE = DEVICES["h100"].title
NO_TRAINING = "no training: the measured losses are counted as the authors' code counts them"


def described(
    recipe: Recipe,
    runs: tuple[Run, ...],
    scale: Scale,
    variants: tuple[RecipeVariant, ...] = (),
    *,
    done: Callable[[Run], int],
) -> Iterator[str]:
    """The plan, line by line.

    :param variants: that are tried beside it.
    :param done: run → how many of its trainings have ended before.
    """
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.whole_reading
    more = {
        variant: [made for run in runs if (made := beside(run, changed(run, variant))) is not None]
        for variant in variants
    }
    every = [*runs, *(run for new in more.values() for run in new)]
    if scale == "cpu":
        yield _smaller(recipe, runs, every)
    required = {id(run): needs(run) for run in every} if scale == "paper" else {}
    yield from _runs(runs, required, done)
    for variant, new in more.items():
        yield f"As published, {variant.name}: {variant.what}"
        yield from _runs(new, required, done)
        if not new:
            yield NO_TRAINING
    if scale == "paper":
        yield from _total(every, required, done)
    for name, model in recipe.models(scale).items():
        held = f"the checkpoint in the package {model.removeprefix(PACKAGE).partition('/')[0].replace('_', '-')}"
        yield f"{name}: a diagnosis of {held if model.startswith(PACKAGE) else model}"


def comparison(run: Run, done: int) -> str:
    """One comparison of a plan.

    :param done: its trainings that have ended before.
    """
    state = "pre-trained" if run.diagnosed or followed(run) else "done"
    ended = f", {done} of them {state}" if done else ""
    return f"{trained(trained_run(run))}: {plural(run.trials, 'trial')}{ended}"


def _smaller(recipe: Recipe, runs: Sequence[Run], every: Sequence[Run]) -> str:
    longer = sum(run.trials for run in every) / sum(run.trials for run in runs) if runs else 1
    minutes = plural(round(recipe.minutes * longer), "minute")
    return f"Made smaller: {recipe.scaled}. About {minutes} on two cores in all, less where some of it is done."


def _runs(runs: Sequence[Run], required: dict[int, RunNeeds], done: Callable[[Run], int]) -> Iterator[str]:
    for run in runs:
        yield comparison(run, done(run))
        if id(run) in required:
            yield f"  {_needs(required[id(run)])}"


def _needs(found: RunNeeds) -> str:
    need = found.estimate
    hours = f"{need.hours:,.0f} hours of one {DEVICE} at {UTILISATION:.0%} of its peak"
    if need.per_image is not None:
        return (
            f"{need.parameters / 1e6:.1f} million parameters, {need.steps:,} steps of {need.images:,} images each; "
            f"{need.per_image / 1e9:.1f} GFLOPs an image, {need.flops:.1e} in all: {hours}, if the images come fast enough; {_fit(found)}"
        )
    assert need.tokens is not None
    return (
        f"{need.parameters / 1e6:,.0f} million parameters, {need.tokens / 1e9:,.1f} billion tokens each; {need.flops:.1e} FLOPs in all: "
        f"{hours}; {_fit(found)}"
    )


def _fit(found: RunNeeds) -> str:
    """Whether a model fits a device."""
    if found.memory is None or found.available is None:
        return "one trial a GPU"
    fit = f"{found.memory / 1e9:.0f} GB of a device's {found.available / 1e9:.0f}"
    if found.fits:
        return f"{fit}, one trial a GPU"
    return f"{fit}, which do not fit: {', or '.join(found.remedies) or 'not on eight either'}"


def _total(every: Sequence[Run], required: dict[int, RunNeeds], done: Callable[[Run], int]) -> Iterator[str]:
    hours = sum(required[id(run)].estimate.hours for run in every)
    left = sum(required[id(run)].estimate.hours * (1 - done(run) / run.trials) for run in every)
    if len(every) > 1 or left < hours:
        still = f", {left:,.0f} of them still to do" if left < hours else ""
        yield f"All of it: {hours:,.0f} hours of one {DEVICE}{still}."
    if any(run.diagnosed or followed(run) for run in every):
        yield "Not counted: what follows the pre-training."
