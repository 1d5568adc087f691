"""What a stress test and a search show, as data."""

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
    :param steps: of the ramp.
    :param baseline: title of the placement that the ratio is to; `None` without a ratio.
    """

    limit: LearningRateLimit
    state: Literal["known", "failed", "never-learnt", "partly"]
    steps: int
    baseline: str | None


@dataclass(frozen=True, kw_only=True)
class RampEndedFirst(Finding):
    """Some trainings did not break before the ramp ended, so that their limit is higher than stated."""


@dataclass(frozen=True, kw_only=True)
class RampCaveat(Finding):
    """A ramp of so many steps is no training at one learning rate."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class SingleRampSeed(Finding):
    """The ramps were run for one seed."""


@dataclass(frozen=True, kw_only=True)
class NothingChosen(Finding):
    """No candidate trained at all seeds.

    :param without_post: whether none with Post-LN layers was trained in full, because no proxy trial came below the unigram baseline.
    """

    without_post: bool


@dataclass(frozen=True, kw_only=True)
class Choice(Finding):
    """The candidate with the lowest loss of those that trained at all seeds."""

    chosen: Finalist
    layers: int


@dataclass(frozen=True, kw_only=True)
class NotChosen(Finding):
    """Another candidate.

    :param interval: of its loss's difference from the chosen one.
    :param ended: how its seeds ended, where not all trained.
    """

    placement: str
    learning_rate: float
    interval: Interval | None
    ended: tuple[Termination, ...]
    judgement: Literal["behind-in-tuning", "some-untrained", "single-seed", "worse", "not-significant"]


@dataclass(frozen=True, kw_only=True)
class TuningEffort(Finding):
    """How many learning rates each candidate was tuned over: placement, proxy trials, full trainings."""

    tried: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class RateAtEdge(Finding):
    """Placements whose learning rate is the last that was tried in its direction."""

    placements: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TriedCounts(Finding):
    """The numbers of Post-LN layers that proxy trials had, of so many layers."""

    counts: tuple[int, ...]
    layers: int


@dataclass(frozen=True, kw_only=True)
class UnknownLimits(Finding):
    """Numbers of Post-LN layers whose stability limit the ramps did not show."""

    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SearchCost(Finding):
    """What the search cost, in full trainings, and what an exhaustive sweep would.

    :param proxies: proxy trials, of which `pruned` were ended early.
    """

    cost: float
    proxies: int
    pruned: int
    sweep: int


@dataclass(frozen=True, kw_only=True)
class ProxyBias(Finding):
    """Short proxy trials prefer what learns fast."""


def stress_findings(found: Stress) -> tuple[Finding, ...]:
    """What the ramps show. It is computed from the numbers, and not stored."""
    titles = {limit.placement: limit.title for limit in found.limits}
    limits = sorted(found.limits, key=lambda limit: (limit.layers, -(limit.rate or 0)))
    seeds = {ramp.seed for ramp in found.ramps}
    return (
        *(
            StabilityLimit(
                limit=limit,
                state=_state(limit),
                steps=found.steps,
                baseline=None if limit.ratio is None else titles[found.baseline],
            )
            for limit in limits
        ),
        *([RampEndedFirst()] if any(limit.censored for limit in limits) else []),
        *([RampCaveat(steps=found.steps)] if any(limit.rate for limit in limits) else []),
        *([SingleRampSeed()] if len(seeds) == 1 else []),
    )


def search_findings(found: Search) -> tuple[Finding, ...]:
    """The choice, and what limits it. It is computed from the numbers, and not stored."""
    if found.chosen is None:
        return (NothingChosen(without_post=not any(each.post_layers for each in found.finalists)),)
    return (
        Choice(chosen=found.chosen, layers=found.layers),
        *(_rejected(each) for each in found.finalists if each != found.chosen),
        *_effort(found),
        TriedCounts(counts=tuple(sorted({proxy.post_layers for proxy in found.proxies})), layers=found.layers),
        *([UnknownLimits(counts=found.unknown)] if found.unknown else []),
        SearchCost(
            cost=found.cost,
            proxies=len(found.proxies),
            pruned=sum(proxy.ended == "pruned" for proxy in found.proxies),
            sweep=found.sweep,
        ),
        ProxyBias(),
    )


def _state(limit: LearningRateLimit) -> Literal["known", "failed", "never-learnt", "partly"]:
    if limit.failed:
        return "failed"
    if not limit.trained:
        return "never-learnt"
    return "partly" if limit.rate is None else "known"


def _rejected(each: Finalist) -> NotChosen:
    return NotChosen(
        placement=each.placement,
        learning_rate=each.learning_rate,
        interval=each.difference,
        ended=each.ended,
        judgement=_judgement(each),
    )


def _judgement(
    each: Finalist,
) -> Literal["behind-in-tuning", "some-untrained", "single-seed", "worse", "not-significant"]:
    gap = each.difference
    if not each.seeds:
        return "behind-in-tuning"
    if gap is None:
        return "some-untrained"
    if gap.low is None:
        return "single-seed"
    return "worse" if gap.excludes_zero else "not-significant"


def _effort(found: Search) -> Iterator[Finding]:
    yield TuningEffort(
        tried=tuple(
            (each.placement, sum(proxy.post_layers == each.post_layers for proxy in found.proxies), len(each.tried))
            for each in found.finalists
        )
    )
    if edge := tuple(each.placement for each in found.finalists if each.edge):
        yield RateAtEdge(placements=edge)
