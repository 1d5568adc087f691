"""What stress tests and searches show, as data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixln.compare.results import Interval
from mixln.search.findings import (
    Choice,
    NotChosen,
    NothingChosen,
    ProxyBias,
    RampCaveat,
    RampEndedFirst,
    RateAtEdge,
    SearchCost,
    SingleRampSeed,
    StabilityLimit,
    TriedCounts,
    TuningEffort,
    UnknownLimits,
    search_findings,
    stress_findings,
)
from mixln.search.results import Ramp
from tests.compare.records import all_of, one
from tests.search.records import finalist, limit, searched, stressed

WORSE = Interval(mean=0.3, low=0.1, high=0.5, pairs=2)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (limit(), "never-learnt"),
        (limit(trained=1), "partly"),
        (limit(rate=0.1, trained=2), "known"),
        (limit(trained=1, failed=1), "failed"),
    ],
)
def test_the_state_of_a_limit(found, state):
    every = stress_findings(stressed(found))
    stability = one(every, StabilityLimit)
    assert (stability.limit, stability.state, stability.steps, stability.baseline) == (found, state, 20, None)
    assert [caveat.steps for caveat in all_of(every, RampCaveat)] == ([20] if state == "known" else [])


def test_limits_stand_by_depth_the_highest_first():
    low, high = limit(rate=0.1, trained=2), limit(placement="post", title="Post-LN", rate=0.2, trained=2)
    ratio = Interval(mean=0.7, low=None, high=None, pairs=1)
    deep = limit(layers=4, rate=0.3, trained=2, ratio=ratio)
    every = all_of(stress_findings(stressed(deep, low, high)), StabilityLimit)
    assert [each.limit for each in every] == [high, low, deep]
    assert [each.baseline for each in every] == [None, None, "Pre-LN"]


def test_a_ramp_that_ended_first_and_a_single_seed():
    found = limit(rate=0.1, trained=2, censored=1)
    ramp = Ramp(placement="pre", layers=2, init="normal", seed=0, breaking=None, curve=())
    assert one(stress_findings(stressed(found, ramps=(ramp,))), RampEndedFirst)
    assert one(stress_findings(stressed(found, ramps=(ramp,))), SingleRampSeed)
    two = stress_findings(stressed(replace(found, censored=0), ramps=(ramp, replace(ramp, seed=1))))
    assert all_of(two, RampEndedFirst) == all_of(two, SingleRampSeed) == []


@pytest.mark.parametrize(("counts", "without"), [((0,), True), ((1, 0), False)])
def test_nothing_can_be_chosen(counts, without):
    found = searched(*(finalist(count, 1e-3, (4.0, None)) for count in counts), chosen=False)
    assert search_findings(found) == (NothingChosen(without_post=without),)


def test_the_choice_and_its_evidence():
    chosen = replace(finalist(1, 2e-3, (4.0, 4.1)), edge=True)
    every = search_findings(searched(chosen, finalist(0, 1e-3, (4.3, 4.4), WORSE), unknown=(4,)))
    assert every[0] == Choice(chosen=chosen, layers=4)
    assert one(every, TuningEffort).tried == (("mix(1/4)", 1, 1), ("pre", 1, 1))
    assert one(every, RateAtEdge).placements == ("mix(1/4)",)
    assert one(every, TriedCounts) == TriedCounts(counts=(0, 1, 2), layers=4)
    assert one(every, UnknownLimits).counts == (4,)
    assert one(every, SearchCost) == SearchCost(cost=8.25, proxies=3, pruned=1, sweep=42)
    assert isinstance(every[-1], ProxyBias)
    plain = search_findings(searched(replace(chosen, edge=False)))
    assert all_of(plain, RateAtEdge) == all_of(plain, UnknownLimits) == []


@pytest.mark.parametrize(
    ("losses", "interval", "judgement"),
    [
        ((), None, "behind-in-tuning"),
        ((4.3, None), None, "some-untrained"),
        ((4.3,), Interval(mean=0.3, low=None, high=None, pairs=1), "single-seed"),
        ((4.3, 4.4), WORSE, "worse"),
        ((4.3, 4.4), replace(WORSE, low=-0.1), "not-significant"),
    ],
)
def test_those_that_were_not_chosen(losses, interval, judgement):
    other = finalist(0, 1e-3, losses, interval)
    rejected = one(search_findings(searched(finalist(1, 2e-3, (4.0, 4.1)), other)), NotChosen)
    assert (rejected.placement, rejected.learning_rate, rejected.judgement) == ("pre", 1e-3, judgement)
    assert (rejected.interval, rejected.ended) == (interval, other.ended)
