"""The search for a share of Post-LN layers and a learning rate: ramps, then short trainings, then full ones over seeds."""

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
"""Settings of an exhaustive sweep: the shares of Table 5 of the Mix-LN paper, at three learning rates."""


def tune(settings: SearchSettings, display: Display) -> Search:
    """Searches, or goes on with a search that was cut off.

    :raises SettingsError: if a setting cannot work, or Optuna is missing; :class:`StoreError` if the folder holds something else;
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
            short = dataclasses.replace(settings.training, steps=settings.proxy_steps, tokens=None)
            template = ProxyJob(**_job(settings, data, short, settings.trials // plan.jobs))
            seed = max(settings.seeds) + 1
            worst = data.floor.loss + 1
            search = ProxyTrials(settings, template, layers=layers, seed=seed, limits=limits, worst=worst)
            proxies = search.search(workers, display)
            chosen = candidates(proxies, settings.finalists)
            if all(proxy.post_layers for proxy in chosen):  # so that there is something to compare with
                rate = rounded(limit_at(limits, 0) / 64)
                chosen.append(
                    Proxy(placement="pre", post_layers=0, learning_rate=rate, loss=None, steps=0, ended="finished")
                )
            searches = _finals(settings, data, chosen, seed, workers, display)
        finally:
            workers.end()
    finalists = ranked(searches, settings.seeds)
    steps = (
        len(counts) * settings.ramp_steps
        + sum(proxy.steps for proxy in proxies)
        + sum(result.step for each in searches for results in each.tried.values() for result in results.values())
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
    """Number of Post-LN layers → highest learning rate that trains; and the numbers of which it is not known."""
    log.info(f"ramps: {', '.join(placement_with(count, layers) for count in counts)}")
    ramps = stress(settings.stress(counts, layers), display).ramps
    if errors := [ramp.error for ramp in ramps if ramp.breaking is None]:
        raise MixlnError(f"a ramp failed: {errors[0]}; run the same command again to try it once more")
    # What was never better than word frequencies in so short a ramp may yet be; the search finds out.
    found = {ramp.placement: ramp.rate or ramp.breaking.best_rate for ramp in ramps if ramp.breaking}
    known = {ramp.placement for ramp in ramps if ramp.rate}
    by_count = {count: placement_with(count, layers) for count in counts}
    limits = tuple((count, found[placement]) for count, placement in by_count.items())
    return limits, tuple(count for count, placement in by_count.items() if placement not in known)


def _job(settings: SearchSettings, data: TaskData[Any], training: TrainSettings, together: int) -> dict[str, Any]:
    """What all trainings of a search have in common; trial and folder are still to come."""
    comparison = settings.comparison()
    nothing = Trial(placement="pre", init=settings.init, learning_rate=1.0, seed=0)
    return {
        "trial": nothing,
        "folder": settings.out,
        "config": data.config.to_dict(),
        "settings": dataclasses.replace(comparison, training=training),
        "data": data.folder,
        "shared": {"settings": named(settings), TASKS[comparison.task].entry: {"fingerprint": data.fingerprint}},
        "together": together,
    }


def candidates(proxies: Sequence[Proxy], count: int) -> list[Proxy]:
    """The best short trainings, of each number of Post-LN layers the best, and that of Pre-LN whatever it was: so short a training
    may not bring it below the unigram baseline at its best learning rate either."""
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
    """The candidates with what became of their full trainings.

    :param seed: by which learning rates are tuned; it is none of those that the results are taken of.
    """
    template = TrialJob(**_job(settings, data, settings.training, (TRIES + len(settings.seeds)) * len(chosen)))

    def job_of(proxy: Proxy, rate: float, seed: int) -> TrialJob:
        trial = Trial(placement=proxy.placement, init=settings.init, learning_rate=rate, seed=seed)
        folder = settings.out / "full" / f"post-{proxy.post_layers}_lr{rate!r}_seed{seed}"
        return dataclasses.replace(template, trial=trial, folder=folder)

    searches = tune_learning_rates(chosen, seed, job_of, workers, display, settings.steps)
    pre = [each for each in searches if not each.proxy.post_layers]
    for each in sorted((each for each in searches if each.proxy.post_layers), key=lambda each: each.loss(each.settled)):
        seeded([each, *pre], settings.seeds, job_of, workers, display, settings.steps)
        if each.whole(settings.seeds):  # else the next one has its turn
            break
    return searches


def ranked(searches: Sequence[LearningRateSearch], seeds: tuple[int, ...]) -> tuple[Finalist, ...]:
    """The finalists, the best one first: those that trained at all seeds, those at some, and those that fell behind before."""

    def rank(each: LearningRateSearch) -> tuple[int, float]:
        losses = _losses(each, seeds)
        return -len(losses), float(np.mean([*losses.values()])) if losses else each.loss(each.settled)

    ordered = sorted(searches, key=rank)
    best = _losses(ordered[0], seeds)
    return tuple(_finalist(each, best if index else None, seeds) for index, each in enumerate(ordered))


def _losses(each: LearningRateSearch, seeds: Sequence[int]) -> dict[int, float]:
    """At the learning rate that was taken, of the seeds that trained."""
    results = each.tried[each.settled]
    return {
        seed: result.loss
        for seed in seeds
        if (result := results.get(seed)) is not None and result.status == "finished" and result.loss is not None
    }


def _finalist(each: LearningRateSearch, best: dict[int, float] | None, order: tuple[int, ...]) -> Finalist:
    results, losses = each.tried[each.settled], _losses(each, order)
    seeds = tuple(seed for seed in order if seed in results)
    complete = bool(seeds) and len(losses) == len(seeds)
    mean, low, high = t_interval([*losses.values()]) if complete else (None, None, None)
    return Finalist(
        placement=each.proxy.placement,
        title=title(each.proxy.placement),
        post_layers=each.proxy.post_layers,
        learning_rate=each.rate(each.settled),
        seeds=seeds,
        losses=tuple(losses.get(seed) for seed in seeds),
        ended=tuple(Termination(status=results[seed].status, reason=results[seed].reason) for seed in seeds),
        loss=mean,
        low=low,
        high=high,
        difference=None if best is None or not complete else paired_difference(losses, best),
        tried=tuple(_tried(each, number) for number in sorted(each.tried)),
        edge=each.edge,
    )


def _tried(each: LearningRateSearch, number: int) -> RateResult:
    results = each.tried[number]
    losses = (result.loss if result.status == "finished" else None for result in results.values())
    return RateResult(learning_rate=each.rate(number), seeds=tuple(results), losses=tuple(losses))
