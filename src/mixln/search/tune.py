"""The search for a share of Post-LN layers and a learning rate: ramps, then proxy trials, then full trainings over seeds."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from mixln.compare.display import Display
from mixln.compare.execution.pool import PersistentPool
from mixln.compare.execution.runner import machine
from mixln.compare.execution.trial_job import TrialJob
from mixln.compare.statistics import paired_difference, t_interval
from mixln.compare.tasks import TASKS
from mixln.compare.tasks.task import TaskData
from mixln.errors import MixlnError, SettingsError
from mixln.files import cache_folder
from mixln.hosts import count_parameters
from mixln.nn.schemes import scheme
from mixln.placement.zoo import title
from mixln.runs.provenance import here
from mixln.runs.trials import Trial
from mixln.search.finalists import TRIES, LearningRateSearch, seeded, tune_learning_rates
from mixln.search.folder import folder_of, named
from mixln.search.proxy_trials import ProxyJob, ProxyTrials, limit_at, rounded
from mixln.search.results import Finalist, Proxy, RateResult, Search, Termination
from mixln.search.settings import SearchSettings, placement_with
from mixln.search.stress import stress
from mixln.training.precision import resolve
from mixln.training.settings import TrainSettings

log = logging.getLogger(__name__)

SWEEP = 7 * 3
"""Number of settings in an exhaustive sweep: the seven shares of Table 5 of the Mix-LN paper at three learning rates."""


def tune(settings: SearchSettings, display: Display) -> Search:
    """Runs a search, or resumes an interrupted one.

    :raises SettingsError: if a setting is invalid or Optuna is missing; :class:`StoreError` if the folder holds something else;
        :class:`MixlnError` if a ramp or a full training failed.
    """
    if find_spec("optuna") is None:
        raise SettingsError(
            "tune needs the package optuna; run pip install optuna, or install mixln with its extra search"
        )
    training = dataclasses.replace(settings.training, precision=resolve(settings.training.precision))
    settings = dataclasses.replace(settings, training=training, cache=cache_folder(settings.cache))
    scheme(settings.init)
    run = folder_of(settings)
    comparison = settings.comparison()
    task = TASKS[comparison.task]
    data = task.prepare(comparison, task.config(comparison))
    layers = int(data.config.num_hidden_layers)
    with run.locked():
        run.begin(named(settings))
        counts = tuple(sorted({0, layers // 4, layers}))
        limits, unknown = _limits(settings, counts, layers, display)
        plan = machine(settings.jobs, parameters=count_parameters(data.config), trials=settings.trials)
        workers = PersistentPool(plan)
        try:
            seed = max(settings.seeds) + 1  # the final seeds take no part in the selection
            proxies = _proxies(settings, data, limits, seed, workers, display)
            chosen = _with_baseline(candidates(proxies, settings.finalists), limits)
            searches = _finals(settings, data, chosen, seed, workers, display)
        finally:
            workers.end()
    finalists = ranked(searches, settings.seeds)
    steps = (
        len(counts) * settings.ramp_steps
        + sum(proxy.steps for proxy in proxies)
        + sum(result.step for search in searches for results in search.tried.values() for result in results.values())
    )
    return Search(
        settings=named(settings),
        layers=layers,
        steps=settings.steps,
        proxy_steps=settings.proxy_steps,
        limits=limits,
        proxies=proxies,
        finalists=finalists,
        chosen=finalists[0] if finalists[0].loss is not None else None,
        cost=steps / settings.steps,
        sweep=SWEEP * len(settings.seeds),
        unknown=unknown,
        text=data.text,
        provenance=here(),
    )


def _limits(
    settings: SearchSettings, counts: tuple[int, ...], layers: int, display: Display
) -> tuple[tuple[tuple[int, float], ...], tuple[int, ...]]:
    """(Number of Post-LN layers, stability limit), and the numbers of Post-LN layers whose limit is unknown."""
    log.info(f"ramps: {', '.join(placement_with(count, layers) for count in counts)}")
    ramps = stress(settings.stress(counts, layers), display).ramps
    if errors := [ramp.error for ramp in ramps if ramp.breaking is None]:
        raise MixlnError(f"a ramp failed: {errors[0]}; run the same command again to retry it")
    # A placement that stays above the unigram baseline in a short ramp may still learn in a longer training, so it is kept.
    rates = {ramp.placement: ramp.rate or ramp.breaking.best_rate for ramp in ramps if ramp.breaking}
    known = {ramp.placement for ramp in ramps if ramp.rate}
    by_count = {count: placement_with(count, layers) for count in counts}
    limits = tuple((count, rates[placement]) for count, placement in by_count.items())
    return limits, tuple(count for count, placement in by_count.items() if placement not in known)


def _job(settings: SearchSettings, data: TaskData[Any], training: TrainSettings, together: int) -> dict[str, Any]:
    """The fields common to all jobs of a search, with placeholders for trial and folder.

    :param together: approximate number of trainings per worker, which share compiled graphs.
    """
    comparison = settings.comparison()
    placeholder = Trial(placement="pre", init=settings.init, learning_rate=1.0, seed=0)
    return {
        "trial": placeholder,
        "folder": settings.out,
        "config": data.config.to_dict(),
        "settings": dataclasses.replace(comparison, training=training),
        "data": data.folder,
        "shared": {"settings": named(settings), TASKS[comparison.task].entry: {"fingerprint": data.fingerprint}},
        "together": together,
    }


def _proxies(
    settings: SearchSettings,
    data: TaskData[Any],
    limits: Sequence[tuple[int, float]],
    seed: int,
    workers: PersistentPool,
    display: Display,
) -> tuple[Proxy, ...]:
    """Runs the proxy trials."""
    training = dataclasses.replace(settings.training, steps=settings.proxy_steps, tokens=None)
    trials = ProxyTrials(
        settings,
        ProxyJob(**_job(settings, data, training, settings.trials // workers.machine.jobs)),
        layers=int(data.config.num_hidden_layers),
        seed=seed,
        limits=limits,
        worst=data.floor.loss + 1,  # 1 nat above the unigram baseline
    )
    return trials.search(workers, display)


def _with_baseline(chosen: list[Proxy], limits: Sequence[tuple[int, float]]) -> list[Proxy]:
    """The candidates, with Pre-LN added if it is not among them, at a fraction of its stability limit."""
    if not all(proxy.post_layers for proxy in chosen):
        return chosen
    rate = rounded(limit_at(limits, 0) / 64)
    return [
        *chosen,
        Proxy(placement="pre", post_layers=0, learning_rate=rate, loss=None, steps=0, ended="finished"),
    ]


def candidates(proxies: Sequence[Proxy], count: int) -> list[Proxy]:
    """The best proxy trials, at most one for each number of Post-LN layers, and the best one of Pre-LN in any case.

    Pre-LN is the baseline, and a short training may not bring it below the unigram baseline even at its best learning rate.
    """
    best: dict[int, Proxy] = {}
    trained = [proxy for proxy in proxies if proxy.loss is not None and proxy.ended in ("finished", "stalled")]
    for proxy in sorted(trained, key=lambda proxy: (proxy.ended == "stalled", proxy.loss)):
        if proxy.ended == "finished" or not proxy.post_layers:
            best.setdefault(proxy.post_layers, proxy)
    chosen = [proxy for proxy in best.values() if proxy.ended == "finished"][:count]
    return chosen if 0 not in best or best[0] in chosen else [*chosen, best[0]]


def _finals(
    settings: SearchSettings,
    data: TaskData[Any],
    chosen: Sequence[Proxy],
    seed: int,
    workers: PersistentPool,
    display: Display,
) -> list[LearningRateSearch]:
    """The candidates with the results of their full trainings.

    :param seed: seed for tuning the learning rates; must not be one of the final seeds.
    """
    template = TrialJob(**_job(settings, data, settings.training, (TRIES + len(settings.seeds)) * len(chosen)))

    def job_of(proxy: Proxy, rate: float, seed: int) -> TrialJob:
        trial = Trial(placement=proxy.placement, init=settings.init, learning_rate=rate, seed=seed)
        folder = settings.out / "full" / f"post-{proxy.post_layers}_lr{rate!r}_seed{seed}"
        return dataclasses.replace(template, trial=trial, folder=folder)

    searches = tune_learning_rates(chosen, seed, job_of, workers, display, settings.steps)
    baseline = [search for search in searches if not search.proxy.post_layers]
    others = [search for search in searches if search.proxy.post_layers]
    # All seeds only for the best one and the baseline; the next best follows if the best does not train at all seeds.
    for search in sorted(others, key=lambda search: search.loss(search.settled)):
        seeded([search, *baseline], settings.seeds, job_of, workers, display, settings.steps)
        if search.complete(settings.seeds):
            break
    return searches


def ranked(searches: Sequence[LearningRateSearch], seeds: tuple[int, ...]) -> tuple[Finalist, ...]:
    """The finalists, ordered by the number of seeds that trained, then by loss."""

    def rank(search: LearningRateSearch) -> tuple[int, float]:
        losses = _losses(search, seeds)
        return -len(losses), float(np.mean([*losses.values()])) if losses else search.loss(search.settled)

    ordered = sorted(searches, key=rank)
    best = _losses(ordered[0], seeds)
    return tuple(_finalist(search, best if index else None, seeds) for index, search in enumerate(ordered))


def _losses(search: LearningRateSearch, seeds: Sequence[int]) -> dict[int, float]:
    """Seed → loss at the chosen learning rate, for the seeds that trained."""
    results = search.tried[search.settled]
    return {
        seed: result.loss
        for seed in seeds
        if (result := results.get(seed)) is not None and result.status == "finished" and result.loss is not None
    }


def _finalist(search: LearningRateSearch, best: dict[int, float] | None, order: tuple[int, ...]) -> Finalist:
    """The record of a candidate.

    :param best: losses of the chosen candidate by seed; `None` for the chosen candidate itself.
    :param order: the seeds in their order.
    """
    results, losses = search.tried[search.settled], _losses(search, order)
    seeds = tuple(seed for seed in order if seed in results)
    complete = bool(seeds) and len(losses) == len(seeds)
    mean, low, high = t_interval([*losses.values()]) if complete else (None, None, None)
    return Finalist(
        placement=search.proxy.placement,
        title=title(search.proxy.placement),
        post_layers=search.proxy.post_layers,
        learning_rate=search.rate(search.settled),
        seeds=seeds,
        losses=tuple(losses.get(seed) for seed in seeds),
        ended=tuple(Termination(status=results[seed].status, reason=results[seed].reason) for seed in seeds),
        loss=mean,
        low=low,
        high=high,
        difference=None if best is None or not complete else paired_difference(losses, best),
        tried=tuple(_tried(search, number) for number in sorted(search.tried)),
        edge=search.edge,
    )


def _tried(search: LearningRateSearch, number: int) -> RateResult:
    results = search.tried[number]
    losses = (result.loss if result.status == "finished" else None for result in results.values())
    return RateResult(learning_rate=search.rate(number), seeds=tuple(results), losses=tuple(losses))
