"""Sentences on the findings of a stress test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mixln.findings import Finding
from mixln.report.wording.phrases import NO_CLAIM, plural
from mixln.search.findings import RampCaveat, RampEndedFirst, SingleRampSeed, StabilityLimit, stress_findings
from mixln.search.results import Failure, LearningRateLimit, Ramp, Stress

ENDS: dict[Failure, str] = {
    "none": "still trained at the end of the ramp",
    "worsens": "worsened",
    "stalls": "stalled",
    "diverges": "diverged",
}
"""How a ramp ended."""
MORE_STEPS = "increase --steps, in a new --out"


def verdict(result: Stress) -> tuple[str, ...]:
    """The sentences, most important first."""
    return tuple(map(sentence, stress_findings(result)))


def sentence(finding: Finding) -> str:
    """The sentence on one finding."""
    match finding:
        case StabilityLimit():
            return _limit(finding)
        case RampEndedFirst():
            return (
                "Where a ramp ended before training became unstable, the limit is a lower bound and ratios with it are unreliable; raise "
                "--highest, in a new --out."
            )
        case RampCaveat():
            return (
                f"A ramp of {finding.steps:,} steps is short and acts as its own warmup: a full training at a constant learning rate may "
                "become unstable at a lower or a higher one. The ramp ranks placements and bounds the learning rates worth trying."
            )
        case SingleRampSeed():
            return NO_CLAIM
    raise TypeError(f"no sentence for {finding!r}")


def ends(failures: Sequence[Failure]) -> dict[str, int]:
    """How ramps ended → number of ramps."""
    return Counter(ENDS[failure] for failure in failures)


def interval(limit: LearningRateLimit) -> str:
    """The interval of a limit; empty without one, and if all seeds have the same limit, which does not estimate the error."""
    if limit.low is None or limit.high is None or limit.low == limit.high:
        return ""
    return f"[{limit.low:.2g}, {limit.high:.2g}]"


def ratio(limit: LearningRateLimit) -> str:
    """`0.41 [0.20, 0.80]`; empty for the baseline."""
    interval = limit.ratio
    if interval is None:
        return ""
    middle = f"{math.exp(interval.mean):.2g}"
    if interval.low is None or interval.high is None or interval.pointlike:
        return middle
    return f"{middle} [{math.exp(interval.low):.2g}, {math.exp(interval.high):.2g}]"


def ramp(result: Ramp) -> str:
    """The outcome of one ramp."""
    if result.breaking is None:
        return f"failed: {result.error}"
    outcome = result.breaking
    top = "never trained" if outcome.rate is None else f"trained up to {outcome.rate:.3g}"
    spikes = (
        f"; {plural(outcome.spikes, 'spike')}, the first at {outcome.first_spike:.3g}" if outcome.first_spike else ""
    )
    return f"{top}; {ENDS[outcome.failure]}{spikes}; lowest loss {outcome.least:.3f} at {outcome.best_rate:.3g}"


def _limit(finding: StabilityLimit) -> str:
    limit = finding.limit
    name = f"{limit.title} ({limit.layers} layers, {limit.init})"
    seeds = len(limit.failures)
    how = ", ".join(f"{count} of {seeds} {end}" for end, count in ends(limit.failures).items())
    against = f"; {ratio(limit)} times {finding.baseline}'s" if finding.baseline else ""
    match finding.state:
        case "failed":
            return (
                f"{name} was not tested at all seeds: {limit.failed} of {limit.failed + seeds} ramps failed with an error; run the same "
                "command again to retry them."
            )
        case "never-learnt":
            return (
                f"{name} never fell below the unigram baseline ({how}): either {finding.steps:,} steps are too few to find its stability "
                f"limit, or it does not train; {MORE_STEPS}."
            )
        case "partly":
            return (
                f"{name} fell below the unigram baseline at only {limit.trained} of {plural(seeds, 'seed')} ({how}): its stability limit "
                f"is unknown; {MORE_STEPS}."
            )
        case "known":
            spiked = f"; {limit.spiked} had a loss spike below the limit and recovered" if limit.spiked else ""
            top = f"{'at least ' if limit.censored else ''}{limit.rate:.2g} {interval(limit)}".rstrip()
            return f"{name} trains up to learning rate {top}; ramps: {how}{spiked}{against}."
