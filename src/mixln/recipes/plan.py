"""What a recipe trains and what that takes, before it is begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mixln.compare.tasks import TASKS
from mixln.errors import SettingsError
from mixln.planning.settings import DEVICES
from mixln.recipes.deviations import Variant, changed
from mixln.recipes.records import Recipe, Run, Scale
from mixln.training.settings import Parallel

if TYPE_CHECKING:
    from mixln.planning.plan import Plan


def settings_of(run: Run) -> str:
    """What one run trains, in a line."""
    settings = run.settings
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    micro = settings.training.micro_batch_size
    length = f"{TASKS[settings.task].length(settings)}{f', {micro} at a time' if micro else ''}"
    return (
        f"{run.name}: {settings.model}; {', '.join(settings.placements)}; learning rate{'s' if ',' in rates else ''} {rates}; "
        f"seeds {', '.join(map(str, settings.seeds))}; {length}; init {settings.init or 'as each placement has it'}"
    )


def check_machine(runs: tuple[Run, ...], *, processes: int = 1, parallel: Parallel = "ddp") -> None:
    """Whether runs at the paper's scale can go on here.

    :param processes: that train one model together; `parallel` is what each holds of it.
    :raises SettingsError: if not: it says what is needed and what is there.
    """
    import torch

    if any(run.settings.executor == "ray" for run in runs):
        if not all(run.settings.gpus_per_trial for run in runs):
            raise SettingsError("scale paper needs a GPU for each training; add --gpus-per-trial 1")
        return
    if torch.cuda.is_available():
        have = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
        for run in runs:
            made = planned(run, processes=processes, parallel=parallel, memory=have)
            if made is not None and not made.fits:
                without = ["leave it out with --only"] if len(runs) > 1 else []
                remedies = [*_remedies(run, made), *without, "run --scale cpu"]
                raise SettingsError(
                    f"scale paper needs {made.memory.total / 1e9:.0f} GB of a GPU for {run.name}, and 1 GB for its driver, and this "
                    f"machine's have {have / 1e9:.0f} GB; {', or '.join(remedies)}"
                )
        return
    cores = torch.get_num_threads()
    models = ", ".join(dict.fromkeys(run.settings.model for run in runs))
    raise SettingsError(
        f"scale paper needs a GPU for each training ({models}), and this machine has none and "
        f"{cores} cores; see it with --plan, or run --scale cpu"
    )


def _remedies(run: Run, made: Plan) -> Iterator[str]:
    """What to do with a model that does not fit a GPU; nothing where nothing helps.

    :param made: its plan.
    """
    asked = made.settings
    if made.remedy is not None:
        yield f"add {made.remedy_options}"
    alone = asked.devices == 1 and not _followed(run)
    if not alone:
        return
    shared = planned(run, processes=8, parallel="fsdp", memory=asked.memory)
    if shared is not None and shared.fits:
        yield "start it with torchrun on eight GPUs and --parallel fsdp"


def described(
    recipe: Recipe,
    runs: tuple[Run, ...],
    scale: Scale,
    variants: tuple[Variant, ...] = (),
    *,
    done: Callable[[Run], int],
) -> Iterator[str]:
    """What a recipe is, what it trains and what that takes, line by line.

    :param variants: what is tried beside it.
    :param done: run → how many of its trials have ended before.
    """
    yield f"{recipe.title} ({recipe.source})"
    yield recipe.whole_reading
    beside = {
        variant: [made for run in runs if (made := _beside(run, changed(run, variant))) is not None]
        for variant in variants
    }
    every = [*runs, *(run for new in beside.values() for run in new)]
    if scale == "cpu":
        longer = sum(run.trials for run in every) / sum(run.trials for run in runs) if runs else 1
        minutes = round(recipe.minutes * longer)
        yield (
            f"Made smaller: {recipe.scaled}. About {minutes} minute{'s' * (minutes != 1)} on two cores in all, less where some of it is "
            "done."
        )
    hours = left = 0.0
    for variant, new in {None: runs, **beside}.items():
        if variant is not None:
            yield f"As published, {variant.name}: {variant.what}"
        for run in new:
            count = done(run)
            ended = f", {count} of them {'pre-trained' if run.diagnosed or _followed(run) else 'done'}" if count else ""
            yield f"{settings_of(run)}: {run.trials} trial{'s' * (run.trials > 1)}{ended}"
            if scale == "paper":
                text, own = _needs(run)
                hours += own
                left += own * (1 - count / run.trials)
                yield f"  {text}"
        if not new and variant is not None:
            yield "no training: what the others found is counted as the authors' code counts"
    if scale == "paper" and (len(every) > 1 or left < hours):
        still = f", {left:,.0f} of them still to do" if left < hours else ""
        yield f"All of it: {hours:,.0f} hours of one {DEVICES['h100'].title}{still}."
    if scale == "paper" and any(run.diagnosed or _followed(run) for run in every):
        yield "Not counted: what follows the pre-training."
    for name, model in recipe.models(scale).items():
        held = f"the checkpoint in the package {model.removeprefix('package:').partition('/')[0].replace('_', '-')}"
        yield f"{name}: a diagnosis of {held if model.startswith('package:') else model}"


def _beside(run: Run, made: Run) -> Run | None:
    """What of a changed run is to be trained beside the run as it is."""
    own = run.settings.placements if made.settings.shared() == run.settings.shared() else ()
    placements = tuple(name for name in made.settings.placements if name not in own)
    return replace(made, settings=replace(made.settings, placements=placements, baseline=None)) if placements else None


def _followed(run: Run) -> bool:
    """Whether its models are trained further or asked tasks."""
    return bool(run.settings.after.chain)


def _needs(run: Run) -> tuple[str, float]:
    """What one run takes at the paper's scale, and its hours of one device."""
    need = TASKS[run.settings.task].estimate(run.settings, run.trials)
    return f"{need.words}; {_fit(run)}", need.hours


def _fit(run: Run) -> str:
    made = planned(run)
    if made is None:
        return "one trial a GPU"
    fit = f"{made.memory.total / 1e9:.0f} GB of a device's {made.settings.memory / 1e9:.0f}"
    if made.fits:
        return f"{fit}, one trial a GPU"
    return f"{fit}, which do not fit: {', or '.join(_remedies(run, made)) or 'not on eight either'}"


def planned(run: Run, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None) -> Plan | None:
    """The plan of a run, see :meth:`mixln.compare.tasks.task.Task.plan`."""
    task = TASKS[run.settings.task]
    return task.plan(run.settings, run.trials, processes=processes, parallel=parallel, memory=memory)
