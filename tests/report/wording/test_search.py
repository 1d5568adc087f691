"""The sentences on searches and stress tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixln.compare.results import Interval
from mixln.findings import Finding
from mixln.report.wording import search, search_report, stress
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
from mixln.search.results import LearningRateLimit, Ramp, RampOutcome, Termination
from tests.search.records import finalist, limit, searched, stressed

KNOWN = limit(rate=0.0523, low=0.02, high=0.131, trained=2, failures=("diverges", "worsens"))
DIFFERENCE = Interval(mean=0.3, low=0.1, high=0.5, pairs=2)


@pytest.mark.parametrize(
    ("found", "baseline", "text"),
    [
        (
            limit(trained=1, failed=1, failures=("stalls",)),
            None,
            "was not tested at all seeds: 1 of 2 ramps failed with an error; run the same command again to retry them.",
        ),
        (
            limit(),
            None,
            "never fell below the unigram baseline (2 of 2 stalled): either 20 steps are too few to find its stability limit, or "
            "it does "
            "not train; increase --steps, in a new --out.",
        ),
        (
            limit(trained=1),
            None,
            "fell below the unigram baseline at only 1 of 2 seeds (2 of 2 stalled): its stability limit is unknown; increase "
            "--steps, in a new --out.",
        ),
        (
            KNOWN,
            None,
            "trains up to learning rate 0.052 [0.02, 0.13]; ramps: 1 of 2 diverged, 1 of 2 worsened.",
        ),
        (
            replace(KNOWN, low=0.0523, high=0.0523, censored=1, spiked=1, failures=("none", "none")),
            None,
            "trains up to learning rate at least 0.052; ramps: 2 of 2 still trained at the end of the ramp; 1 had a loss spike "
            "below the limit and recovered.",
        ),
        (
            replace(KNOWN, ratio=Interval(mean=-0.693, low=-1.386, high=0.0, pairs=2)),
            "Pre-LN",
            "trains up to learning rate 0.052 [0.02, 0.13]; ramps: 1 of 2 diverged, 1 of 2 worsened; 0.5 [0.25, 1] times "
            "Pre-LN's.",
        ),
    ],
)
def test_a_stability_limit(found: LearningRateLimit, baseline: str | None, text: str) -> None:
    state = stress_findings(stressed(found))[0].state
    finding = StabilityLimit(limit=found, state=state, steps=20, baseline=baseline)
    assert stress.sentence(finding) == f"Pre-LN (2 layers, normal) {text}"


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (
            RampEndedFirst(),
            "Where a ramp ended before training became unstable, the limit is a lower bound and ratios with it are unreliable; "
            "raise --highest, in a new --out.",
        ),
        (
            RampCaveat(steps=1500),
            "A ramp of 1,500 steps is short and acts as its own warmup: a full training at a constant learning rate may become "
            "unstable at a lower or a higher one. The ramp ranks placements and bounds the learning rates worth trying.",
        ),
        (SingleRampSeed(), "With a single seed there is no confidence interval, and no claim can be made."),
    ],
)
def test_the_limits_of_a_stress_test(finding: Finding, text: str) -> None:
    assert stress.sentence(finding) == text


def test_one_ramp() -> None:
    broken = RampOutcome(rate=0.01, failure="stalls", spikes=0, first_spike=None, least=5.0, best_rate=0.004)
    ramp = Ramp(placement="pre", layers=2, init="normal", seed=0, breaking=broken, curve=())
    assert stress.ramp(ramp) == "trained up to 0.01; stalled; lowest loss 5.000 at 0.004"
    spiked = replace(broken, rate=None, spikes=2, first_spike=0.002, failure="diverges")
    assert stress.ramp(replace(ramp, breaking=spiked)) == (
        "never trained; diverged; 2 spikes, the first at 0.002; lowest loss 5.000 at 0.004"
    )
    assert stress.ramp(replace(ramp, breaking=None, error="out of memory")) == "failed: out of memory"


def test_the_cells_of_a_stress_test() -> None:
    assert search_report.highest(0.0523, censored=True, unknown=False) == "≥ 0.052"
    assert search_report.highest(None, censored=False, unknown=True) == "unknown"
    assert search_report.highest(None, censored=False, unknown=False) == "none"


CHOSEN = finalist(1, 2e-3, (4.0, 4.1))


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (
            NothingChosen(without_post=False),
            "No candidate trained at all seeds: nothing can be chosen. Search again with more --trials or --steps, in a new --out.",
        ),
        (
            NothingChosen(without_post=True),
            "No proxy trial with Post-LN layers fell below the unigram baseline, so none was trained in full: nothing can be "
            "chosen. "
            "Search again with more --trials or --steps, in a new --out.",
        ),
        (
            Choice(chosen=CHOSEN, layers=4),
            "Use mix(1/4) (1 of 4 layers Post-LN) at learning rate 0.002: held-out perplexity 57.40 [51.94, 63.43] over 2 seeds.",
        ),
        (
            Choice(chosen=finalist(1, 2e-3, (4.0,)), layers=4),
            "Use mix(1/4) (1 of 4 layers Post-LN) at learning rate 0.002: held-out perplexity 54.60 over 1 seed.",
        ),
        (
            TuningEffort(tried=(("mix(1/4)", 5, 3), ("pre", 3, 2))),
            "Learning rates tried (proxy trials + full trainings): mix(1/4) 5 + 3, pre 3 + 2. Placements tuned over more settings "
            "have an "
            "advantage, and the selected best is optimistically biased (winner's curse).",
        ),
        (
            RateAtEdge(placements=("mix(1/4)", "pre")),
            "The best learning rate of mix(1/4), pre is at the edge of the range tried: a better one may lie beyond.",
        ),
        (
            TriedCounts(counts=(0, 1, 3), layers=12),
            "Proxy trials had 0, 1, 3 of 12 layers Post-LN; no other counts were tried.",
        ),
        (
            UnknownLimits(counts=(4, 6)),
            "The stability limit with 4, 6 Post-LN layers is unknown: the loss of so short a ramp never fell below the unigram "
            "baseline, so the learning rates tried there are guesses. Increase --steps, in a new --out.",
        ),
        (
            SearchCost(cost=8.25, proxies=30, pruned=12, sweep=42),
            "The search took as many steps as 8.2 full trainings (30 proxy trials, of which 12 were pruned); a sweep over the "
            "seven shares "
            "of Table 5 of the Mix-LN paper at three learning rates, with the same seeds, would take 42.",
        ),
        (
            ProxyBias(),
            "Proxy trials favour settings that learn fast; in longer training or for a larger model another setting may be best.",
        ),
    ],
)
def test_the_findings_of_a_search(finding: Finding, text: str) -> None:
    assert search.sentence(finding) == text


@pytest.mark.parametrize(
    ("judgement", "interval", "text"),
    [
        (
            "behind-in-tuning",
            None,
            "pre at 0.001 was worse when learning rates were tuned with one seed, and was not trained further.",
        ),
        (
            "some-untrained",
            None,
            "pre at 0.001 did not train at all seeds (finished; diverged: the loss is not finite).",
        ),
        (
            "single-seed",
            Interval(mean=0.3, low=None, high=None, pairs=1),
            "pre at 0.001: perplexity +35.0% (n = 1, no interval) against the choice. With a single seed there is no confidence "
            "interval, and no "
            "claim can be made.",
        ),
        (
            "worse",
            DIFFERENCE,
            "pre at 0.001: perplexity +35.0% [+10.5, +64.9] against the choice, significantly worse.",
        ),
        (
            "not-significant",
            replace(DIFFERENCE, low=-0.1),
            "pre at 0.001: perplexity +35.0% [−9.5, +64.9] against the choice, not significant over these seeds.",
        ),
    ],
)
def test_those_that_were_not_chosen(judgement: str, interval: Interval | None, text: str) -> None:
    ended = (Termination(status="finished"), Termination(status="diverged", reason="the loss is not finite"))
    finding = NotChosen(placement="pre", learning_rate=1e-3, interval=interval, ended=ended, judgement=judgement)
    assert search.sentence(finding) == text


def test_verdicts_are_the_sentences_of_all_findings() -> None:
    found, tested = searched(CHOSEN, finalist(0, 1e-3, (4.3, 4.4), DIFFERENCE)), stressed(KNOWN)
    assert search.verdict(found) == tuple(map(search.sentence, search_findings(found)))
    assert stress.verdict(tested) == tuple(map(stress.sentence, stress_findings(tested)))
