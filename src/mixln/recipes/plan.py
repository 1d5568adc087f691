"""The trainings of a recipe and the resources that they take, before it is begun."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mixln.compare.tasks import TASKS
from mixln.compare.tasks.task import Estimate
from mixln.errors import SettingsError
from mixln.recipes.records import Run
from mixln.recipes.results import TrainedRun
from mixln.training.settings import Parallel

if TYPE_CHECKING:
    from mixln.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class RunNeeds:
    """The resources that one run takes at the paper's scale.

    :param memory: of a device, bytes, of `available`; `None` for models that always fit.
    :param remedies: what to do if it does not fit.
    """

    estimate: Estimate
    memory: float | None = None
    available: float | None = None
    fits: bool = True
    remedies: tuple[str, ...] = ()


def trained_run(run: Run) -> TrainedRun:
    """What one run trains, as a record."""
    settings = run.settings
    schedule = TASKS[settings.task].schedule(settings)
    return TrainedRun(
        run=run.name,
        model=settings.model,
        placements=settings.placements,
        learning_rates=settings.learning_rates,
        seeds=settings.seeds,
        init=settings.init,
        batch_size=settings.training.batch_size,
        micro_batch_size=settings.training.micro_batch_size,
        steps=schedule.steps,
        sequence_length=schedule.sequence_length,
        epochs=schedule.epochs,
    )


def check_machine(runs: tuple[Run, ...], *, processes: int = 1, parallel: Parallel = "ddp") -> None:
    """Whether runs at the paper's scale can go on here.

    :param processes: that train one model together; `parallel` is what each holds of it.
    :raises SettingsError: if not: it says what is needed and what is there.
    """
    import torch

    if any(run.settings.execution.executor == "ray" for run in runs):
        if not all(run.settings.execution.gpus_per_trial for run in runs):
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
    alone = asked.devices == 1 and not followed(run)
    if not alone:
        return
    shared = planned(run, processes=8, parallel="fsdp", memory=asked.memory)
    if shared is not None and shared.fits:
        yield "start it with torchrun on eight GPUs and --parallel fsdp"


def beside(run: Run, made: Run) -> Run | None:
    """What of a changed run is to be trained beside the run as it is."""
    own = run.settings.placements if made.settings.shared() == run.settings.shared() else ()
    placements = tuple(name for name in made.settings.placements if name not in own)
    return replace(made, settings=replace(made.settings, placements=placements, baseline=None)) if placements else None


def followed(run: Run) -> bool:
    """Whether its models are trained further or asked tasks."""
    return bool(run.settings.after.chain)


def needs(run: Run) -> RunNeeds:
    """What one run takes at the paper's scale."""
    estimate, made = TASKS[run.settings.task].estimate(run.settings, run.trials), planned(run)
    if made is None:
        return RunNeeds(estimate=estimate)
    return RunNeeds(
        estimate=estimate,
        memory=made.memory.total,
        available=made.settings.memory,
        fits=made.fits,
        remedies=() if made.fits else tuple(_remedies(run, made)),
    )


def planned(run: Run, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None) -> Plan | None:
    """The plan of a run, see :meth:`mixln.compare.tasks.task.Task.plan`."""
    task = TASKS[run.settings.task]
    return task.plan(run.settings, run.trials, processes=processes, parallel=parallel, memory=memory)
