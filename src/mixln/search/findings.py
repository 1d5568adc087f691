"""Findings of a stress test and of a search, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mixln.compare.results import Interval
from mixln.findings import Finding
from mixln.search.results import Finalist, LearningRateLimit, Search, Stress, Termination


@dataclass(frozen=True, kw_only=True)
class StabilityLimit(Finding):
    """The highest learning rate at which one placement trains.

    :param state: `known`; `failed`: ramps ended with an error; `never-learnt`: no seed came below the unigram baseline; `partly`: some did.
    :param steps: steps of the ramp.
    :param baseline: title of the placement in the denominator of the ratio; `None` without a ratio.
    """

    limit: LearningRateLimit
    state: Literal["known", "failed", "never-learnt", "partly"]
    steps: int
    baseline: str | None


@dataclass(frozen=True, kw_only=True)
class RampEndedFirst(Finding):
    """Some trainings were stable to the end of the ramp, so that their limit is higher than stated."""


@dataclass(frozen=True, kw_only=True)
class RampCaveat(Finding):
    """A ramp is not a training at a constant learning rate: it spends few steps at each."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class SingleRampSeed(Finding):
    """The ramps were run for one seed."""


@dataclass(frozen=True, kw_only=True)
class NothingChosen(Finding):
    """No candidate trained at all seeds.

    :param without_post: whether no candidate with Post-LN layers was trained at full length, because none of their proxy trials came
        below the unigram baseline.
    """

    without_post: bool


@dataclass(frozen=True, kw_only=True)
class Choice(Finding):
    """The candidate with the lowest loss among those that trained at all seeds."""

    chosen: Finalist
    layers: int


@dataclass(frozen=True, kw_only=True)
class NotChosen(Finding):
    """A candidate that was not chosen.

    :param interval: its loss minus that of the chosen one.
    :param ended: how its seeds ended, if not all trained.
    """

    placement: str
    learning_rate: float
    interval: Interval | None
    ended: tuple[Termination, ...]
    judgement: Literal["behind-in-tuning", "some-untrained", "single-seed", "worse", "not-significant"]


@dataclass(frozen=True, kw_only=True)
class TuningEffort(Finding):
    """Number of learning rates over which each candidate was tuned: (placement, proxy trials, full trainings)."""

    tried: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class RateAtEdge(Finding):
    """Placements whose learning rate is the highest or lowest that was tried."""

    placements: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TriedCounts(Finding):
    """The numbers of Post-LN layers in the proxy trials, out of `layers`."""

    counts: tuple[int, ...]
    layers: int


@dataclass(frozen=True, kw_only=True)
class UnknownLimits(Finding):
    """Numbers of Post-LN layers whose stability limit the ramps did not determine."""

    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SearchCost(Finding):
    """Cost of the search and of an exhaustive sweep, in full trainings.

    :param proxies: number of proxy trials.
    :param pruned: number of proxy trials that were stopped early.
    """

    cost: float
    proxies: int
    pruned: int
    sweep: int


@dataclass(frozen=True, kw_only=True)
class ProxyBias(Finding):
    """Short proxy trials favour placements that learn fast."""


def stress_findings(result: Stress) -> tuple[Finding, ...]:
    """The findings of a stress test; computed from its numbers, not stored."""
    titles = {limit.placement: limit.title for limit in result.limits}
    limits = sorted(result.limits, key=lambda limit: (limit.layers, -(limit.rate or 0)))
    seeds = {ramp.seed for ramp in result.ramps}
    return (
        *(
            StabilityLimit(
                limit=limit,
                state=_state(limit),
                steps=result.steps,
                baseline=None if limit.ratio is None else titles[result.baseline],
            )
            for limit in limits
        ),
        *([RampEndedFirst()] if any(limit.censored for limit in limits) else []),
        *([RampCaveat(steps=result.steps)] if any(limit.rate for limit in limits) else []),
        *([SingleRampSeed()] if len(seeds) == 1 else []),
    )


def search_findings(search: Search) -> tuple[Finding, ...]:
    """The choice and its limitations; computed from the numbers, not stored."""
    if search.chosen is None:
        return (NothingChosen(without_post=not any(finalist.post_layers for finalist in search.finalists)),)
    return (
        Choice(chosen=search.chosen, layers=search.layers),
        *(_rejected(finalist) for finalist in search.finalists if finalist != search.chosen),
        *_effort(search),
        TriedCounts(counts=tuple(sorted({proxy.post_layers for proxy in search.proxies})), layers=search.layers),
        *([UnknownLimits(counts=search.unknown)] if search.unknown else []),
        SearchCost(
            cost=search.cost,
            proxies=len(search.proxies),
            pruned=sum(proxy.ended == "pruned" for proxy in search.proxies),
            sweep=search.sweep,
        ),
        ProxyBias(),
    )


def _state(limit: LearningRateLimit) -> Literal["known", "failed", "never-learnt", "partly"]:
    if limit.failed:
        return "failed"
    if not limit.trained:
        return "never-learnt"
    return "partly" if limit.rate is None else "known"


def _rejected(finalist: Finalist) -> NotChosen:
    return NotChosen(
        placement=finalist.placement,
        learning_rate=finalist.learning_rate,
        interval=finalist.difference,
        ended=finalist.ended,
        judgement=_judgement(finalist),
    )


def _judgement(
    finalist: Finalist,
) -> Literal["behind-in-tuning", "some-untrained", "single-seed", "worse", "not-significant"]:
    gap = finalist.difference
    if not finalist.seeds:
        return "behind-in-tuning"
    if gap is None:
        return "some-untrained"
    if gap.low is None:
        return "single-seed"
    return "worse" if gap.excludes_zero else "not-significant"


def _effort(search: Search) -> Iterator[Finding]:
    yield TuningEffort(
        tried=tuple(
            (
                finalist.placement,
                sum(proxy.post_layers == finalist.post_layers for proxy in search.proxies),
                len(finalist.tried),
            )
            for finalist in search.finalists
        )
    )
    if edge := tuple(finalist.placement for finalist in search.finalists if finalist.edge):
        yield RateAtEdge(placements=edge)
