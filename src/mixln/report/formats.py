"""Numbers of a comparison as short text, the same in the terminal, in Markdown, on the page and on the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mixln.compare import words

NOTHING = words.NOTHING
MINUS = words.MINUS
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(text: str) -> str:
    """A name without line breaks, escape sequences and other characters that do not print."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def rate(value: float | None) -> str:
    """A throughput per second: `980`, `12,345`, `123k`, `1.23M`."""
    if value is None:
        return NOTHING
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e5 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A duration in seconds: `8.4`, `1,234`."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def learning_rate(value: float) -> str:
    """A learning rate as it is typed: `0.001`, `5e-05`."""
    return f"{value:g}"


def ended(
    finished: int, seeds: int, stalled: int, diverged: int, failed: int, *, diverged_at: Sequence[int]
) -> tuple[str, ...]:
    """How trials ended: `2 of 2`, or `1 of 2,` and `1 diverged at step 40`.

    :param diverged_at: the optimizer steps at which the diverged trials ended.
    """
    pieces = [f"{finished} of {seeds}"] if finished or not (stalled or diverged or failed) else []
    if stalled:
        pieces.append(f"{stalled} stalled")
    if diverged:
        pieces.append(divergence(diverged, diverged_at))
    if failed:
        pieces.append(f"{failed} failed")
    return (*(piece + "," for piece in pieces[:-1]), pieces[-1])


def divergence(count: int, steps: Sequence[int]) -> str:
    """`1 diverged at step 40`, `2 diverged at steps 40–70`."""
    if not steps:
        return f"{count} diverged"
    low, high = min(steps), max(steps)
    return f"{count} diverged at step{f' {low:,}' if low == high else f's {low:,}–{high:,}'}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits: `0.0120`, `−1.50`, `12,345`; `—` where it is not known or not finite."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".") if value else "0"
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A change with its sign: `+0.0123`, `−1.50`, `0`."""
    return f"+{number(value, digits)}" if value is not None and 0 < value < math.inf else number(value, digits)


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval, `[+0.010, +0.020]`; empty for none."""
    return "" if low is None or high is None else f"[{signed(low, 2)}, {signed(high, 2)}]"


def hundredths(value: float) -> str:
    """A correlation with two decimals: `0.95`, `−0.20`."""
    return f"{value:.2f}".replace("-", MINUS)


def points(value: float) -> str:
    """A difference in percentage points with its sign and two decimals: `+1.20`, `−0.35`."""
    return f"{value:+.2f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """A probability: `p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def angle(value: float) -> str:
    """An angle as a fraction of π with three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else NOTHING


def tick(value: float) -> str:
    """A number at an axis: `0.05`, `150`, `2,000`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def power(exponent: int) -> str:
    """A power of ten at an axis: `10⁻³`."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)
