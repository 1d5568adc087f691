"""Numbers and times in words, the same wherever they are said."""

from __future__ import annotations

import math

MINUS = "−"
NOTHING = "—"


def perplexity(value: float) -> str:
    """A perplexity with three or four digits: `18.74`, `178.2`, `4,012`; `∞` for an overflow."""
    if math.isinf(value):
        return "∞"
    if value < 1000:
        return f"{value:.2f}" if value < 100 else f"{value:.1f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


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


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign and without the unit."""
    text = f"{100 * share:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
