"""Numbers and durations as text, the same in the terminal, in Markdown, on the page and on the axes."""

from __future__ import annotations

import math

MINUS = "−"
NOTHING = "—"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits: `0.0120`, `−1.50`, `12,345`; `—` if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".") if value else "0"
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A change with its sign: `+0.0123`, `−1.50`, `0`."""
    return f"+{number(value, digits)}" if value is not None and 0 < value < math.inf else number(value, digits)


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval, `[+0.010, +0.020]`; empty if there is none."""
    return "" if low is None or high is None else f"[{signed(low, 2)}, {signed(high, 2)}]"


def decimals(value: float, places: int = 3, *, sign: bool = False) -> str:
    """A number with a fixed number of decimals, without the sign of a negative zero: `0.250`, `−1.050`, `+0.004`."""
    return f"{value:{'+' if sign else ''}z.{places}f}".replace("-", MINUS)


def perplexity(value: float) -> str:
    """A perplexity with three or four digits: `18.74`, `178.2`, `4,012`; `∞` for an overflow."""
    if math.isinf(value):
        return "∞"
    if value < 1000:
        return f"{value:.2f}" if value < 100 else f"{value:.1f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def percent_change(delta: float) -> str:
    """A difference of logarithms as a change in percent, 100·(e^Δ − 1), with its sign and without the unit.

    :param delta: difference in natural logarithm, for example of losses in nats per token.
    """
    value = 100 * math.expm1(delta) if delta < 700 else math.inf
    if math.isinf(value):
        return "+∞"
    size = abs(value)
    text = f"{value:+.1f}" if size < 1000 else f"{value:+,.0f}" if size < 1e6 else f"{value:+.0e}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def factor(delta: float) -> str:
    """A difference of natural logarithms as a ratio, e^Δ: `1.72`."""
    return f"{math.exp(delta):.3g}"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign and without the unit: `+1.20`, `−0.35`."""
    text = f"{100 * share:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", MINUS)


def percent(value: float, places: int = 2) -> str:
    """A percentage: `95.12%`."""
    return f"{value:.{places}f}%"


def correlation(value: float) -> str:
    """A correlation with two decimals: `0.95`, `−0.20`."""
    return f"{value:.2f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """A probability: `p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def angle(value: float) -> str:
    """An angle as a fraction of π with three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else NOTHING


def rate(value: float | None) -> str:
    """A throughput per second: `980`, `12,345`, `123k`, `1.23M`."""
    if value is None:
        return NOTHING
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e5 else f"{value:,.0f}"


def learning_rate(value: float) -> str:
    """A learning rate as it is typed: `0.001`, `5e-05`."""
    return f"{value:g}"


def seconds(value: float) -> str:
    """A duration in seconds, without the unit: `8.4`, `1,234`."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A duration with its units: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def tick(value: float) -> str:
    """A number at an axis: `0.05`, `150`, `2,000`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def power(exponent: int) -> str:
    """A power of ten at an axis: `10⁻³`."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)
