"""What a stress test shows, in sentences."""

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
MORE_STEPS = "increase --steps, in another --out"


def verdict(found: Stress) -> tuple[str, ...]:
    """All sentences, the most important first."""
    return tuple(map(sentence, stress_findings(found)))


def sentence(finding: Finding) -> str:
    """One finding in words."""
    match finding:
        case StabilityLimit():
            return _limit(finding)
        case RampEndedFirst():
            return (
                "Where a ramp ended before training broke, the limit is a lower bound, and ratios with it are unreliable; raise --highest, "
                "in another --out."
            )
        case RampCaveat():
            return (
                f"A ramp of {finding.steps:,} steps is short, and warms up by itself: a full training at a constant learning rate may "
                "break earlier or later. The ramp orders placements, and bounds the learning rates worth trying."
            )
        case SingleRampSeed():
            return NO_CLAIM
    raise TypeError(f"no sentence for {finding!r}")


def ends(failures: Sequence[Failure]) -> dict[str, int]:
    """How ramps ended → how many."""
    return Counter(ENDS[failure] for failure in failures)


def interval(limit: LearningRateLimit) -> str:
    """The interval of a limit; empty without one, and where all seeds broke at the same record, which shows no precision."""
    if limit.low is None or limit.high is None or limit.low == limit.high:
        return ""
    return f"[{limit.low:.2g}, {limit.high:.2g}]"


def ratio(limit: LearningRateLimit) -> str:
    """`0.41 [0.20, 0.80]`; empty for the baseline."""
    found = limit.ratio
    if found is None:
        return ""
    middle = f"{math.exp(found.mean):.2g}"
    if found.low is None or found.high is None or found.pointlike:
        return middle
    return f"{middle} [{math.exp(found.low):.2g}, {math.exp(found.high):.2g}]"


def ramp(each: Ramp) -> str:
    """One ramp in a line."""
    if each.breaking is None:
        return f"failed: {each.error}"
    broken = each.breaking
    top = "never trained" if broken.rate is None else f"trained up to {broken.rate:.3g}"
    spikes = f"; {plural(broken.spikes, 'spike')}, the first at {broken.first_spike:.3g}" if broken.first_spike else ""
    return f"{top}; {ENDS[broken.failure]}{spikes}; lowest loss {broken.least:.3f} at {broken.best_rate:.3g}"


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
                f"{name} fell below the unigram baseline at only {limit.trained} of {plural(seeds, 'seed')} ({how}): "
                f"its stability limit is "
                f"unknown; {MORE_STEPS}."
            )
        case "known":
            spiked = f"; the loss of {limit.spiked} spiked on the way and recovered" if limit.spiked else ""
            top = f"{'at least ' if limit.censored else ''}{limit.rate:.2g} {interval(limit)}".rstrip()
            return f"{name} trains up to learning rate {top}; then {how}{spiked}{against}."
