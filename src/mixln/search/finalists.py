"""The full trainings of a search: each candidate's learning rate is tuned at the full length, then the best ones get all seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixln.compare.display import Display
from mixln.compare.execution.pool import PersistentPool
from mixln.compare.execution.trial_job import TrialJob
from mixln.errors import MixlnError
from mixln.runs.trials import TrialResult, read_result
from mixln.search.proxy_trials import rounded, train
from mixln.search.results import Proxy

log = logging.getLogger(__name__)

STEP = 1.6
"""Ratio of a learning rate to the one below it."""
TRIES = 4
"""Learning rates of a candidate that are tried at the full length, at most."""
RETREATS = 2
"""Times that a candidate which does not train at all seeds goes one learning rate down, at most."""
JobOf = Callable[[Proxy, float, int], TrialJob]
"""Candidate, learning rate and seed → its training."""


@dataclass(eq=False, kw_only=True)
class LearningRateSearch:
    """The learning rates of one candidate: upwards as long as that is better, else downwards.

    :param tried: number of the learning rate, 0 for that of the short training → seed → what became of it.
    :param seed: by which they are tuned.
    :param settled: the number of the one that is taken.
    """

    proxy: Proxy
    seed: int
    tried: dict[int, dict[int, TrialResult]] = field(default_factory=dict)
    settled: int = 0

    def rate(self, number: int) -> float:
        """The learning rate of that number."""
        return rounded(self.proxy.learning_rate * STEP**number)

    @property
    def best(self) -> int:
        """The number of the one with the least loss; of several that diverge, the lowest."""
        return min(self.tried, key=lambda number: (self.loss(number), number))

    def loss(self, number: int) -> float:
        """At the seed by which they are tuned, nats per token; infinite where it diverged or was not trained."""
        result = self.tried[number].get(self.seed)
        if result is None or result.loss is None or result.status not in ("finished", "stalled"):
            return math.inf
        return result.loss

    def following(self) -> int | None:
        """The number of the next one to try; `None` where the best lies between two that are worse, or enough have been tried."""
        if not self.tried:
            return 0
        beside = (self.best + 1, self.best - 1)
        return next((n for n in beside if n not in self.tried), None) if len(self.tried) < TRIES else None

    @property
    def edge(self) -> bool:
        """Whether the one that is taken has no other beyond it."""
        return not {self.settled - 1, self.settled + 1} <= self.tried.keys()

    def whole(self, seeds: Sequence[int]) -> bool:
        """Whether the one that is taken trained at all these seeds."""
        results = self.tried[self.settled]
        return all(seed in results and results[seed].status == "finished" for seed in seeds)


def tune_learning_rates(
    candidates: Sequence[Proxy], seed: int, job_of: JobOf, workers: PersistentPool, display: Display, steps: int
) -> list[LearningRateSearch]:
    """Tunes every candidate's learning rate at the full length with one seed; as one training ends, its candidate's next begins."""
    searches = [LearningRateSearch(proxy=proxy, seed=seed) for proxy in candidates]
    running: dict[Path, tuple[LearningRateSearch, int]] = {}

    def following(each: LearningRateSearch) -> list[TrialJob]:
        """Its next training that has no result yet, if any."""
        while (number := each.following()) is not None:
            job = job_of(each.proxy, each.rate(number), seed)
            if (result := read_result(job.folder)) is None:
                running[job.folder] = (each, number)
                return [job]
            each.tried[number] = {seed: result}
        return []

    def more(folder: Path, result: TrialResult) -> list[TrialJob]:
        each, number = running.pop(folder)
        each.tried[number] = {seed: sound(result)}
        return following(each)

    names = ", ".join(proxy.placement for proxy in candidates)
    log.info(f"full trainings: the learning rate of {names}, at most {TRIES} of each")
    first = [job for each in searches for job in following(each)]
    display.begin(TRIES * len(searches), sum(len(each.tried) for each in searches), steps)
    try:
        train(first, workers, display, more=more)
    finally:
        display.end()
    for each in searches:
        each.settled = each.best
    return searches


def seeded(
    searches: Sequence[LearningRateSearch],
    seeds: Sequence[int],
    job_of: JobOf,
    workers: PersistentPool,
    display: Display,
    steps: int,
) -> None:
    """Trains with all seeds; who does not train at all of them goes a learning rate down, which all then get."""
    pending = list(searches)
    for _ in range(RETREATS + 1):
        jobs = [(each, seed, job_of(each.proxy, each.rate(each.settled), seed)) for each in pending for seed in seeds]
        log.info(f"full trainings: all seeds of {', '.join(_named(each) for each in pending)}")
        display.begin(len(jobs), sum(read_result(job.folder) is not None for _, _, job in jobs), steps)
        try:
            results = train([job for _, _, job in jobs], workers, display)
        finally:
            display.end()
        for each, seed, job in jobs:
            each.tried.setdefault(each.settled, {})[seed] = sound(results[job.folder])
        pending = [each for each in pending if not each.whole(seeds)]
        if not pending:
            return
        for each in pending:
            each.settled -= 1
    for each in pending:
        each.settled += 1  # the last that was tried


def sound(result: TrialResult) -> TrialResult:
    """A result that is one.

    :raises MixlnError: if the training ended with an error: a smaller learning rate would be no answer to that.
    """
    if result.status == "failed":
        raise MixlnError(f"a full training failed: {result.reason}; run the same command again to try it once more")
    return result


def _named(each: LearningRateSearch) -> str:
    return f"{each.proxy.placement} at {each.rate(each.settled):g}"
