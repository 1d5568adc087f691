"""Differences of loss and times in words, the same wherever they are said."""

from __future__ import annotations

import math

from mixln.compare.results import Interval

MINUS = "−"
UNDECIDED = 5.0
"""Width from which an interval is only said to decide nothing, nats per token: a factor of 148 in perplexity."""


def percent(delta: float) -> str:
    """A difference in loss as percent of perplexity, 100·(e^Δ − 1), with its sign and without the unit.

    :param delta: difference in loss, nats per token.
    """
    value = 100 * math.expm1(delta) if delta < 700 else math.inf
    if math.isinf(value):
        return "+∞"
    size = abs(value)
    text = f"{value:+.1f}" if size < 1000 else f"{value:+,.0f}" if size < 1e6 else f"{value:+.0e}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def difference(interval: Interval) -> tuple[str, ...]:
    """`−25.3%` and `[−31.0, −19.1]`: percent of perplexity with its 95% interval, in pieces that may stand on their own lines.

    :param interval: nats per token.
    """
    mean = percent(interval.mean) + "%"
    if interval.low is None or interval.high is None:
        return mean, f"(n = {interval.pairs},", "no interval)"
    if interval.high - interval.low > UNDECIDED:
        return mean, "[undecided]"
    return mean, f"[{percent(interval.low)}, {percent(interval.high)}]"


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
