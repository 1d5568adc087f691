"""What a stress test found, in words."""

from __future__ import annotations

import math
from collections import Counter

from mixln.search.results import Limit

ENDS = {
    "none": "still trained at the end of the ramp",
    "worsens": "worsened",
    "stalls": "stalled",
    "diverges": "diverged",
}
"""How a ramp ended, in words."""


def said(limit: Limit, steps: int) -> str:
    """One limit in words.

    :param steps: of the ramp.
    """
    name = f"{limit.title} ({limit.layers} layers, {limit.init})"
    ends = Counter(ENDS[failure] for failure in limit.failures)
    how = ", ".join(f"{count} of {len(limit.failures)} {end}" for end, count in ends.items())
    spiked = f"; the loss of {limit.spiked} spiked on the way and recovered" if limit.spiked else ""
    if limit.failed:
        return (
            f"{name} was not tested with all seeds: {limit.failed} of {limit.failed + len(limit.failures)} ramps failed with an error; run "
            "the same command again to try them once more"
        )
    if not limit.trained:
        return (
            f"{name} never came below the unigram model ({how}): {steps:,} steps are too few to say up to which learning rate it trains, "
            "or it does not; give more --steps, in another --out"
        )
    if limit.rate is None:
        return (
            f"{name} came below the unigram model from {limit.trained} of {len(limit.failures)} seeds alone ({how}): its highest learning "
            "rate is not known; give more --steps, in another --out"
        )
    interval = f" {ends_text(limit)}" if ends_text(limit) else ""
    return f"{name} trains up to {'at least ' if limit.censored else ''}{limit.rate:.2g}{interval}; then {how}{spiked}"


def ends_text(limit: Limit) -> str:
    """The interval of a limit; empty without one, and where all seeds broke at the same record, which is no certainty."""
    if limit.low is None or limit.high is None or limit.low == limit.high:
        return ""
    return f"[{limit.low:.2g}, {limit.high:.2g}]"


def ratio_text(limit: Limit) -> str:
    """`0.41 [0.20, 0.80]`; empty for the baseline."""
    ratio = limit.ratio
    if ratio is None:
        return ""
    middle = f"{math.exp(ratio.mean):.2g}"
    if ratio.low is None or ratio.high is None or ratio.pointlike:
        return middle
    return f"{middle} [{math.exp(ratio.low):.2g}, {math.exp(ratio.high):.2g}]"
