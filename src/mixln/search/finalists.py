"""The full-length trainings of a search: each candidate's learning rate is tuned with one seed, then the best get all seeds."""

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
"""Ratio of consecutive learning rates; about five per decade."""
TRIES = 4
"""Maximum number of learning rates per candidate at the full length."""
RETREATS = 2
"""Maximum number of times that a candidate's learning rate is lowered because a seed did not train."""
JobOf = Callable[[Proxy, float, int], TrialJob]
"""Candidate, learning rate and seed → training job."""


@dataclass(eq=False, kw_only=True)
class LearningRateSearch:
    """The search for one candidate's learning rate: upwards while the loss improves, then downwards.

    Learning rates are numbered n = 0, ±1, …: the rate of the proxy trial times `STEP`ⁿ.

    :param seed: seed for tuning the learning rate.
    :param tried: n → seed → result.
    :param settled: the n that was chosen.
    """

    proxy: Proxy
    seed: int
    tried: dict[int, dict[int, TrialResult]] = field(default_factory=dict)
    settled: int = 0

    def rate(self, number: int) -> float:
        """The learning rate with this number."""
        return rounded(self.proxy.learning_rate * STEP**number)

    @property
    def best(self) -> int:
        """The n with the lowest loss; if all diverged, the lowest n."""
        return min(self.tried, key=lambda number: (self.loss(number), number))

    def loss(self, number: int) -> float:
        """The loss at the tuning seed, nats per token; infinite if it diverged or was not trained."""
        result = self.tried[number].get(self.seed)
        if result is None or result.loss is None or result.status not in ("finished", "stalled"):
            return math.inf
        return result.loss

    def following(self) -> int | None:
        """The next n to try; `None` if both neighbours of the best are worse, or `TRIES` have been tried."""
        if not self.tried:
            return 0
        neighbours = (self.best + 1, self.best - 1)
        return next((n for n in neighbours if n not in self.tried), None) if len(self.tried) < TRIES else None

    @property
    def edge(self) -> bool:
        """Whether the chosen learning rate is the highest or lowest that was tried."""
        return not {self.settled - 1, self.settled + 1} <= self.tried.keys()

    def complete(self, seeds: Sequence[int]) -> bool:
        """Whether all these seeds trained at the chosen learning rate."""
        results = self.tried[self.settled]
        return all(seed in results and results[seed].status == "finished" for seed in seeds)


def tune_learning_rates(
    candidates: Sequence[Proxy], seed: int, job_of: JobOf, workers: PersistentPool, display: Display, steps: int
) -> list[LearningRateSearch]:
    """Tunes every candidate's learning rate at the full length with one seed. Candidates are trained in parallel."""
    searches = [LearningRateSearch(proxy=proxy, seed=seed) for proxy in candidates]
    running: dict[Path, tuple[LearningRateSearch, int]] = {}

    def following(search: LearningRateSearch) -> list[TrialJob]:
        """The next training without a result, if any. Results of an interrupted run are used again."""
        while (number := search.following()) is not None:
            job = job_of(search.proxy, search.rate(number), seed)
            if (result := read_result(job.folder)) is None:
                running[job.folder] = (search, number)
                return [job]
            search.tried[number] = {seed: result}
        return []

    def more(folder: Path, result: TrialResult) -> list[TrialJob]:
        search, number = running.pop(folder)
        search.tried[number] = {seed: sound(result)}
        return following(search)

    names = ", ".join(proxy.placement for proxy in candidates)
    log.info(f"full-length trainings: tuning the learning rate of {names}, at most {TRIES} values each")
    first = [job for search in searches for job in following(search)]
    display.begin(TRIES * len(searches), sum(len(search.tried) for search in searches), steps)
    try:
        train(first, workers, display, more=more)
    finally:
        display.end()
    for search in searches:
        search.settled = search.best
    return searches


def seeded(
    searches: Sequence[LearningRateSearch],
    seeds: Sequence[int],
    job_of: JobOf,
    workers: PersistentPool,
    display: Display,
    steps: int,
) -> None:
    """Trains all seeds at the chosen learning rates. If a seed does not train, the candidate is repeated one learning rate lower."""
    pending = list(searches)
    for _ in range(RETREATS + 1):
        jobs = [
            (search, seed, job_of(search.proxy, search.rate(search.settled), seed))
            for search in pending
            for seed in seeds
        ]
        log.info(f"full-length trainings: all seeds of {', '.join(map(_named, pending))}")
        display.begin(len(jobs), sum(read_result(job.folder) is not None for _, _, job in jobs), steps)
        try:
            results = train([job for _, _, job in jobs], workers, display)
        finally:
            display.end()
        for search, seed, job in jobs:
            search.tried.setdefault(search.settled, {})[seed] = sound(results[job.folder])
        pending = [search for search in pending if not search.complete(seeds)]
        if not pending:
            return
        for search in pending:
            search.settled -= 1
    for search in pending:
        search.settled += 1  # back to the last learning rate that was tried


def sound(result: TrialResult) -> TrialResult:
    """The result, if the training did not fail.

    :raises MixlnError: if the training ended with an error, which a lower learning rate would not correct.
    """
    if result.status == "failed":
        raise MixlnError(f"a full training failed: {result.reason}; run the same command again to retry it")
    return result


def _named(search: LearningRateSearch) -> str:
    return f"{search.proxy.placement} at {search.rate(search.settled):g}"
