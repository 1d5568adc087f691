"""The trainings of a recipe and the resources that they need, known before it starts."""

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
    """The resources that a run needs at the paper's scale.

    :param memory: memory needed on each device, bytes; `None` for models that always fit.
    :param available: memory of a device, bytes.
    :param remedies: changes that make it fit.
    """

    estimate: Estimate
    memory: float | None = None
    available: float | None = None
    fits: bool = True
    remedies: tuple[str, ...] = ()


def trained_run(run: Run) -> TrainedRun:
    """The record of a run's trainings."""
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
    """Checks whether this machine can run a recipe at the paper's scale.

    :param processes: number of processes that train one model together, with the sharding `parallel`.
    :raises SettingsError: if it cannot; states the required and the available resources.
    """
    import torch

    if any(run.settings.execution.executor == "ray" for run in runs):
        if not all(run.settings.execution.gpus_per_trial for run in runs):
            raise SettingsError("scale paper needs a GPU for each training; add --gpus-per-trial 1")
        return
    if torch.cuda.is_available():
        available = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
        for run in runs:
            plan = planned(run, processes=processes, parallel=parallel, memory=available)
            if plan is not None and not plan.fits:
                skip = ["skip it with --only"] if len(runs) > 1 else []
                remedies = [*_remedies(run, plan), *skip, "run --scale cpu"]
                raise SettingsError(
                    f"scale paper needs {plan.memory.total / 1e9:.0f} GB of GPU memory for {run.name} and 1 GB for the driver, but this "
                    f"machine's GPUs have {available / 1e9:.0f} GB; {', or '.join(remedies)}"
                )
        return
    cores = torch.get_num_threads()
    models = ", ".join(dict.fromkeys(run.settings.model for run in runs))
    raise SettingsError(
        f"scale paper needs a GPU for each training ({models}), but this machine has only {cores} CPU cores; "
        "show the plan with --plan, or run --scale cpu"
    )


def _remedies(run: Run, plan: Plan) -> Iterator[str]:
    """Changes that make a model fit a GPU; empty if there are none."""
    if plan.remedy is not None:
        yield f"add {plan.remedy_options}"
    if plan.settings.devices > 1 or followed(run):  # later steps run in one process
        return
    sharded = planned(run, processes=8, parallel="fsdp", memory=plan.settings.memory)
    if sharded is not None and sharded.fits:
        yield "start it with torchrun on eight GPUs and --parallel fsdp"


def beside(run: Run, variant: Run) -> Run | None:
    """The part of a changed run that the original run does not train; `None` if there is none."""
    common = run.settings.placements if variant.settings.shared() == run.settings.shared() else ()
    placements = tuple(name for name in variant.settings.placements if name not in common)
    if not placements:
        return None
    return replace(variant, settings=replace(variant.settings, placements=placements, baseline=None))


def followed(run: Run) -> bool:
    """Whether its models are post-trained or evaluated on tasks."""
    return bool(run.settings.after.chain)


def needs(run: Run) -> RunNeeds:
    """The resources that a run needs at the paper's scale."""
    estimate, plan = TASKS[run.settings.task].estimate(run.settings, run.trials), planned(run)
    if plan is None:
        return RunNeeds(estimate=estimate)
    return RunNeeds(
        estimate=estimate,
        memory=plan.memory.total,
        available=plan.settings.memory,
        fits=plan.fits,
        remedies=() if plan.fits else tuple(_remedies(run, plan)),
    )


def planned(run: Run, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None) -> Plan | None:
    """The plan of a run, see :meth:`mixln.compare.tasks.task.Task.plan`."""
    task = TASKS[run.settings.task]
    return task.plan(run.settings, run.trials, processes=processes, parallel=parallel, memory=memory)
