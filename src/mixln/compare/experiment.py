"""One comparison from its settings to its summary: check everything, prepare the data, run what is missing, summarise."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from typing import Any, Protocol

from mixln.compare.chain import check_chain, run_chain
from mixln.compare.diagnosis import diagnose_experiment
from mixln.compare.execution.pool import ProcessPool
from mixln.compare.execution.runner import Job, Machine, Progress, Workers, machine, run
from mixln.compare.execution.trial_job import TrialJob, tidy
from mixln.compare.results import DuplicatePlacement, RunWarning, RunWarnings, Summary, VersionChange
from mixln.compare.settings import GridSettings
from mixln.compare.statistics import summarise
from mixln.compare.store import Store, provenance_of
from mixln.compare.tasks import TASKS
from mixln.compare.tasks.task import TaskData
from mixln.errors import MixlnError, SettingsError, StoreError, first_line
from mixln.files import bytes_texts, cache_folder, check_writable, existing, sweep
from mixln.placement import ZOO, Placement
from mixln.placement.preflight import risks
from mixln.records import to_json
from mixln.runs import provenance
from mixln.runs.provenance import Hardware
from mixln.runs.trials import Trial, TrialResult

log = logging.getLogger(__name__)


class Display(Protocol):
    """What shows the course of a comparison."""

    def warn(self, warning: RunWarning) -> None:
        """What a reader of the results must know."""

    def begin(self, trials: int, done: int, steps: int) -> None:
        """:param trials: all of them; `done` have ended before; `steps` each."""

    def watch(self, running: Sequence[Progress]) -> None:
        """Called about twice a second."""

    def finished(self, result: TrialResult) -> None:
        """A trial has ended."""

    def end(self) -> None:
        """All have ended, or the comparison was cut off."""


def compare(
    settings: GridSettings,
    display: Display,
    publish: Callable[[Summary], None] = lambda summary: None,
    workers: Workers | None = None,
    *,
    alone: bool = False,
) -> Summary:
    """Runs a comparison, or what is missing of it, and returns what it found.

    :param publish: called with the summary while the experiment's folder is still locked, and again with the diagnoses.
    :param workers: who does it; left out, what the settings say.
    :param alone: of an experiment that has more placements, learning rates or seeds, only those of the settings: others are neither
        trained nor in the summary.
    :raises SettingsError: if a setting cannot work; :class:`DataError` for the data; :class:`StoreError` for the folder.
        Nothing has been written to the folder then.
    """
    from mixln.hosts.sources import device
    from mixln.training.compiling import no_compiler, obstacle
    from mixln.training.precision import resolve

    if settings.engine.compile == "on" and settings.executor == "local" and (reason := obstacle(device())):
        raise no_compiler(reason)
    # Of the trials of a cluster, those with a GPU run on other machines than this one.
    elsewhere = settings.executor == "ray" and settings.gpus_per_trial > 0 and settings.training.precision == "auto"
    training = replace(settings.training, precision="bfloat16" if elsewhere else resolve(settings.training.precision))
    settings = replace(settings, training=training, cache=cache_folder(settings.cache))
    store, extend, task = Store(settings.out), settings.extend, TASKS[settings.task]
    # First what can be said before the data are read, which may take long; then everything again under the lock.
    if extend and store.read() is None:
        raise StoreError(
            f"out {settings.out} holds no experiment to extend; leave out --extend to start one, or mend --out"
        )
    asked = settings.grid()
    whole = settings.with_grid(store.check({"settings": settings.shared()}, asked, extend=extend))
    check_writable(settings.out)
    settings = settings.with_grid(asked) if alone else whole
    stock = task.config(settings)
    from mixln.hosts import placed_config, placement_for

    placements = {name: placement_for(stock, name) for name in settings.placements}
    if settings.diagnose and (several := [name for name, built in placements.items() if built.streams != "single"]):
        raise SettingsError(
            f"diagnose knows one residual stream, and {several[0]} keeps several; leave out --diagnose or that placement"
        )
    inits = {name: settings.init or built.init for name, built in placements.items()}
    warm = task.warms_up(settings)
    known = (risks(built, init=inits[name], warms_up=warm) for name, built in placements.items())
    warnings = RunWarnings(risks=tuple(chain.from_iterable(known)), duplicates=_duplicates(placements))
    _most_parameters(settings, stock, placements, inits)
    for warning in warnings.every:
        display.warn(warning)

    data = task.prepare(settings, stock)
    stock = data.config
    parameters = _most_parameters(settings, stock, placements, inits)
    steps: dict[str, Any] = {}
    if settings.after.chain:
        log.info(f"chain: checking {', '.join(settings.after.chain)}")
        configs = {name: placed_config(stock, built) for name, built in placements.items()}
        steps = check_chain(store, settings.after, settings.cache, tokenizer=task.tokenizer(data), configs=configs)
    trials = settings.trials(inits)
    plan = machine(settings.jobs, parameters=parameters, trials=len(trials))
    shared = {
        "settings": settings.shared(),
        task.entry: {"fingerprint": data.fingerprint},
        "model": {name: value for name, value in stock.to_dict().items() if name != "transformers_version"},
    }
    for trial in trials:
        store.result(trial)  # reports a corrupt result before a difference in the experiment
    store.check(shared, asked, extend=extend)
    missing = sum(store.result(trial, shared) is None for trial in trials)
    work = bool(settings.after.chain) or missing > 0
    start = _executor(settings, plan, work=work) if workers is None else lambda jobs: workers
    _check_room(store, trials, missing, parameters, plan, settings.training.state_bytes)

    with store.run.locked():
        sweep(store.folder)
        if whole.with_grid(store.check(shared, asked, extend=extend)) != whole:
            raise StoreError(f"out {store.folder} has been extended by another mixln meanwhile; run this again")
        present = store.read() or {**shared, "grid": whole.grid(), "versions": provenance.versions(), "commit": None}
        if missing:  # what is added may be of another
            hardware = (*provenance_of(present).hardware, _hardware(settings, plan, workers))
            present |= {"commit": _also(present["commit"], provenance.commit())}
            present |= {"hardware": to_json(tuple(dict.fromkeys(hardware)))}
        store.create({**present, "task": task.name, **shared, "grid": whole.grid(), "baseline": settings.reference})
        results = {trial: store.result(trial, shared) for trial in trials}
        for trial, result in results.items():
            if result is not None:  # whose worker may have been killed before it had cleared up
                tidy(store.trial_folder(trial), result)
        jobs = [
            TrialJob(
                trial=trial,
                folder=store.add(trial, shared),
                settings=settings,
                config=stock.to_dict(),
                data=data.folder,
                together=max(1, len(trials) // plan.jobs),  # with Ray too: the executor does not move a number
            )
            for trial in trials
            if results[trial] is None
        ]
        if jobs:
            warnings = replace(warnings, version_changes=_version_changes(present["versions"]))
            for change in warnings.version_changes:
                display.warn(change)
            _run(jobs, start, results, display, len(trials), data.length.steps)
        else:
            log.info(f"trials: {len(trials)} of {len(trials)} done, nothing to run")
        ended = [result for result in results.values() if result is not None]
        summary = _summary(settings, data, present, parameters, ended, warnings)
        summary = replace(summary, answered=task.answers(store, summary.placements, ended, data))
        publish(summary)
        if settings.diagnose:
            labels = dict(zip(settings.placements, summary.labels, strict=True))
            diagnoses, lacking = diagnose_experiment(settings.out, settings.cache, labels, warn=display.warn)
            warnings = replace(warnings, undiagnosed=lacking.undiagnosed, unequal_seeds=lacking.unequal_seeds)
            summary = replace(summary, diagnoses=diagnoses, warnings=warnings)
            publish(summary)
        if settings.after.chain:
            taken = run_chain(
                store,
                settings.after,
                steps,
                ended,
                summary.placements,
                baseline=settings.reference,
                cache=settings.cache,
                start=start,
                at_a_time=plan.jobs,
            )
            summary = replace(summary, chain=taken)
            publish(summary)
    return summary


def _executor(settings: GridSettings, plan: Machine, *, work: bool) -> Callable[[int], Workers]:
    """What gives the workers.

    :param work: whether there may be something for them to do; a cluster is not asked for nothing.
    """
    if settings.executor == "local":
        return lambda jobs: ProcessPool(plan, jobs)
    if find_spec("ray") is None:
        raise SettingsError('executor ray needs the package ray; run pip install "mixln[ray]"')
    from mixln.compare.execution.ray_workers import RayWorkers

    task = replace(plan, threads=settings.cpus_per_trial, gpus=settings.gpus_per_trial)
    if work:
        # What it refuses, it refuses before anything is written.
        RayWorkers(task, settings.ray_address).close(kill=False)
    return lambda jobs: RayWorkers(task, settings.ray_address)


def _run(
    jobs: Sequence[Job],
    start: Callable[[int], Workers],
    results: dict[Trial, TrialResult | None],
    display: Display,
    trials: int,
    steps: int,
) -> None:
    def finished(result: TrialResult) -> None:
        results[result.trial] = result
        display.finished(result)

    display.begin(trials, trials - len(jobs), steps)
    try:
        run(jobs, start, finished=finished, watch=display.watch)
    finally:
        display.end()


def _duplicates(placements: dict[str, Placement]) -> tuple[DuplicatePlacement, ...]:
    """Texts that name the same placement, such as `mix(0.25)` and `mix(3)` on 12 layers."""
    seen: dict[Any, str] = {}
    firsts = {name: seen.setdefault(replace(built, name=""), name) for name, built in placements.items()}
    return tuple(DuplicatePlacement(first=first, second=name) for name, first in firsts.items() if first != name)


def _version_changes(before: dict[str, str]) -> tuple[VersionChange, ...]:
    """Packages whose version is another than when the experiment began."""
    now = provenance.versions()
    return tuple(
        VersionChange(package=name, before=old, now=now.get(name))
        for name, old in before.items()
        if old != now.get(name)
    )


def _most_parameters(
    settings: GridSettings, stock: Any, placements: dict[str, Placement], inits: dict[str, str]
) -> int:
    """Builds every model without memory, so that a mistake shows now; returns the most parameters of one."""
    from mixln.hosts import count_parameters

    most = 0
    for name, built in placements.items():
        try:
            count = count_parameters(stock, placement=built, init=inits[name], head=TASKS[settings.task].head)
        except MixlnError:
            raise
        except Exception as error:  # a config may be wrong in as many ways as transformers has models
            raise SettingsError(
                f"model {settings.model} cannot be built: {type(error).__name__}: {first_line(error)}"
            ) from error
        most = max(most, count)
    return most


def _check_room(
    store: Store, trials: list[Trial], missing: int, parameters: int, plan: Machine, state_bytes: int
) -> None:
    """:param missing: how many of the trials are to be trained; `state_bytes`: of a resumable checkpoint, for each parameter."""
    folders = [store.trial_folder(trial) for trial in trials]
    if len(set(folders)) < len(folders):
        raise SettingsError(
            f"placements {', '.join({t.placement for t in trials})}: two of them need the same folder name"
        )
    # A final checkpoint holds float32 weights; two resumable ones overlap.
    need = 4 * parameters * missing + 2 * state_bytes * parameters * min(plan.jobs, missing)
    check_writable(store.folder)
    free = shutil.disk_usage(existing(store.folder)).free
    if free < need:
        needed, there = bytes_texts(need, free)
        raise StoreError(f"out {store.folder} needs {needed} for checkpoints, and its disk has {there} free")


def _summary(
    settings: GridSettings,
    data: TaskData[Any],
    present: dict[str, Any],
    parameters: int,
    results: list[TrialResult],
    warnings: RunWarnings,
) -> Summary:
    rows = summarise(
        results,
        TASKS[settings.task].metrics.ranking,
        placements=settings.placements,
        learning_rates=settings.learning_rates,
        baseline=settings.reference,
        titles={name: title(name) for name in settings.placements},
    )
    return Summary(
        task=settings.task,
        settings={**settings.grid(), "baseline": settings.reference, **settings.shared()},
        folder=str(settings.out),
        parameters=parameters,
        length=data.length,
        baseline=settings.reference,
        floor=data.floor,
        placements=rows,
        trials=tuple(results),
        text=data.text,
        images=data.images,
        provenance=provenance_of(present),
        warnings=warnings,
    )


def title(name: str) -> str:
    """The field's name of a placement: `mix(0.25)` → `Mix-LN`; a mixture or a modified one keeps its text."""
    term = re.fullmatch(r"([a-z-]+\*?)(\([^()]*\))?", name)
    return ZOO[term[1]].title if term and term[1] in ZOO else name


def _also(old: str | None, new: str | None) -> str | None:
    """Both, where they differ."""
    if not old or new is None or new in old:
        return old or new
    return f"{old}; {new}"


def _hardware(settings: GridSettings, plan: Machine, workers: Workers | None) -> Hardware:
    """The machine or cluster that trains now."""
    import torch

    from mixln.training import ranks

    if settings.executor == "ray":
        return Hardware(cores=settings.cpus_per_trial, gpus_per_trial=settings.gpus_per_trial)
    gpus = tuple(torch.cuda.get_device_name(index) for index in range(plan.gpus))
    if workers is None:
        return Hardware(gpus=gpus, cores=os.cpu_count() or 0, trials=plan.jobs, threads=plan.threads)
    return Hardware(gpus=gpus, cores=os.cpu_count() or 0, processes=ranks.size())
