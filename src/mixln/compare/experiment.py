"""A comparison in five phases: plan → prepare → run → summarise → publish."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from mixln.compare.chain import run_chain
from mixln.compare.diagnosis import diagnose_experiment
from mixln.compare.display import Display
from mixln.compare.execution.pool import ProcessPool
from mixln.compare.execution.runner import Workers, run
from mixln.compare.execution.trial_job import TrialJob, tidy
from mixln.compare.preparation import PreparedComparison, plan, prepare
from mixln.compare.results import RunWarnings, Summary, VersionChange
from mixln.compare.settings import GridSettings
from mixln.compare.statistics import summarise
from mixln.compare.store import provenance_of
from mixln.errors import SettingsError, StoreError
from mixln.files import sweep
from mixln.placement.zoo import title
from mixln.records import to_json
from mixln.runs import provenance
from mixln.runs.provenance import Hardware
from mixln.runs.trials import Trial, TrialResult

log = logging.getLogger(__name__)


def compare(
    settings: GridSettings,
    display: Display,
    publish: Callable[[Summary], None] = lambda summary: None,
    workers: Workers | None = None,
    *,
    alone: bool = False,
) -> Summary:
    """Runs a comparison, or the trials that are missing, and returns its summary.

    :param publish: called with the summary once the trials have ended, and again after the diagnoses and the chain; the folder is locked.
    :param workers: workers that run the trials; by default those of the settings.
    :param alone: if the experiment has more placements, learning rates or seeds than the settings, neither train the others nor
        include them in the summary.
    :raises SettingsError: if a setting is invalid.
    :raises DataError: if the data are unusable.
    :raises StoreError: if the folder holds something else, or another process extended its experiment in the meantime.
        No result has been written with any of the three.
    """
    planned = plan(settings, alone=alone)
    warnings = planned.warnings()
    for warning in warnings.every:
        display.warn(warning)
    prepared = prepare(planned)
    start = _executor(prepared) if workers is None else lambda jobs: workers

    with prepared.store.run.locked():
        experiment, changes = _begin(prepared, given_workers=workers is not None)
        for change in changes:
            display.warn(change)
        results = _run(prepared, start, display)
        warnings = replace(warnings, version_changes=changes)
        summary = _summarise(prepared, experiment, results, warnings)
        publish(summary)
        for follow_up in (_diagnosed, _chained):
            followed = follow_up(prepared, summary, start, display)
            if followed is not summary:
                publish(summary := followed)
    return summary


def _executor(prepared: PreparedComparison) -> Callable[[int], Workers]:
    """Number of jobs → the workers of the settings. A cluster is contacted only if there are jobs for it."""
    execution, machine = prepared.settings.execution, prepared.machine
    if execution.executor == "local":
        return lambda jobs: ProcessPool(machine, jobs)
    if find_spec("ray") is None:
        raise SettingsError('executor ray needs the package ray; run pip install "mixln[ray]"')
    from mixln.compare.execution.ray_workers import RayWorkers

    share = replace(machine, threads=execution.cpus_per_trial, gpus=execution.gpus_per_trial)
    if prepared.chain or prepared.missing:
        # Connect once now, so that an unreachable cluster is reported before anything is written.
        RayWorkers(share, execution.ray_address).close(kill=False)
    return lambda jobs: RayWorkers(share, execution.ray_address)


def _begin(prepared: PreparedComparison, *, given_workers: bool) -> tuple[dict[str, Any], tuple[VersionChange, ...]]:
    """Writes `experiment.json`; returns its content, and the packages whose version has changed since the experiment began.

    :param given_workers: the caller provided the workers.
    """
    store, folder_settings = prepared.store, prepared.plan.folder_settings
    sweep(store.folder)
    # The folder was planned before it was locked: another process may have extended it since.
    if (
        folder_settings.with_grid(store.check(prepared.shared, prepared.plan.asked, extend=prepared.plan.extend))
        != folder_settings
    ):
        raise StoreError(
            f"out {store.folder} was extended by another mixln process in the meantime; run the same command again"
        )
    grid = {"grid": folder_settings.grid()}
    present = store.read() or {**prepared.shared, **grid, "versions": provenance.versions(), "commit": None}
    changes: tuple[VersionChange, ...] = ()
    if prepared.missing:
        changes = _version_changes(present["versions"])
        hardware = (*provenance_of(present).hardware, _hardware(prepared, given_workers=given_workers))
        present |= {"commit": _also(present["commit"], provenance.commit())}
        present |= {"hardware": to_json(tuple(dict.fromkeys(hardware)))}
    present |= {"task": prepared.settings.task, **prepared.shared, **grid, "baseline": prepared.settings.reference}
    store.create(present)
    return present, changes


def _run(prepared: PreparedComparison, start: Callable[[int], Workers], display: Display) -> list[TrialResult]:
    """Trains the missing trials; returns the results of all."""
    store, trials = prepared.store, prepared.trials
    results: dict[Trial, TrialResult | None] = {trial: store.result(trial, prepared.shared) for trial in trials}
    for trial, result in results.items():
        if result is not None:  # its worker may have been killed between the result and `tidy`
            tidy(store.trial_folder(trial), result)
    jobs = [_job(prepared, trial) for trial, result in results.items() if result is None]

    def finished(result: TrialResult) -> None:
        results[result.trial] = result
        display.finished(result)

    if jobs:
        display.begin(len(trials), len(trials) - len(jobs), prepared.data.length.steps)
        try:
            run(jobs, start, finished=finished, watch=display.watch)
        finally:
            display.end()
    else:
        log.info(f"trials: {len(trials)} of {len(trials)} done, nothing to run")
    return [result for result in results.values() if result is not None]


def _job(prepared: PreparedComparison, trial: Trial) -> TrialJob:
    return TrialJob(
        trial=trial,
        folder=prepared.store.add(trial, prepared.shared),
        settings=prepared.settings,
        config=prepared.data.config.to_dict(),
        data=prepared.data.folder,
        # Decides whether layers are compiled. With Ray too it is counted for this machine, so that results do not depend on the executor.
        together=max(1, len(prepared.trials) // prepared.machine.jobs),
    )


def _summarise(
    prepared: PreparedComparison, experiment: dict[str, Any], results: Sequence[TrialResult], warnings: RunWarnings
) -> Summary:
    settings, data, task = prepared.settings, prepared.data, prepared.plan.task
    rows = summarise(
        results,
        task.metrics.ranking,
        placements=settings.placements,
        learning_rates=settings.learning_rates,
        baseline=settings.reference,
        titles={name: title(name) for name in settings.placements},
    )
    return Summary(
        task=settings.task,
        settings={**settings.grid(), "baseline": settings.reference, **settings.shared()},
        folder=str(settings.out),
        parameters=prepared.parameters,
        length=data.length,
        baseline=settings.reference,
        floor=data.floor,
        placements=rows,
        trials=tuple(results),
        text=data.text,
        images=data.images,
        provenance=provenance_of(experiment),
        warnings=warnings,
        answered=task.answers(prepared.store, rows, results, data),
    )


def _diagnosed(
    prepared: PreparedComparison, summary: Summary, start: Callable[[int], Workers], display: Display
) -> Summary:
    """The summary with the diagnosis of each placement, if the settings ask for it."""
    settings = prepared.settings
    if not settings.diagnose:
        return summary
    labels = dict(zip(settings.placements, summary.labels, strict=True))
    diagnoses, lacking = diagnose_experiment(settings.out, settings.cache, labels, warn=display.warn)
    warnings = replace(summary.warnings, undiagnosed=lacking.undiagnosed, unequal_seeds=lacking.unequal_seeds)
    return replace(summary, diagnoses=diagnoses, warnings=warnings)


def _chained(
    prepared: PreparedComparison, summary: Summary, start: Callable[[int], Workers], display: Display
) -> Summary:
    """The summary with the results of the chain, if the settings ask for one."""
    settings = prepared.settings
    if not settings.after.chain:
        return summary
    chain = run_chain(
        prepared.store,
        settings.after,
        prepared.chain,
        summary.trials,
        summary.placements,
        baseline=settings.reference,
        cache=settings.cache,
        start=start,
        at_a_time=prepared.machine.jobs,
    )
    return replace(summary, chain=chain)


def _version_changes(before: dict[str, str]) -> tuple[VersionChange, ...]:
    """Packages whose version has changed since the experiment began."""
    now = provenance.versions()
    return tuple(
        VersionChange(package=name, before=old, now=now.get(name))
        for name, old in before.items()
        if old != now.get(name)
    )


def _also(old: str | None, new: str | None) -> str | None:
    """Adds a commit to the list of commits, separated by semicolons, unless it is there."""
    if not old or new is None or new in old:
        return old or new
    return f"{old}; {new}"


def _hardware(prepared: PreparedComparison, *, given_workers: bool) -> Hardware:
    """The machine or cluster of this run."""
    import torch

    from mixln.training import ranks

    execution, machine = prepared.settings.execution, prepared.machine
    if execution.executor == "ray":
        return Hardware(cores=execution.cpus_per_trial, gpus_per_trial=execution.gpus_per_trial)
    gpus = tuple(torch.cuda.get_device_name(index) for index in range(machine.gpus))
    if not given_workers:
        return Hardware(gpus=gpus, cores=os.cpu_count() or 0, trials=machine.jobs, threads=machine.threads)
    return Hardware(gpus=gpus, cores=os.cpu_count() or 0, processes=ranks.size())
