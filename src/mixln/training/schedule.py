"""The learning-rate schedules: linear warm-up, then cosine; and a ramp."""

from __future__ import annotations

import math


def factor(update: int, *, steps: int, warmup_steps: int, final: float) -> float:
    """Learning rate of one update as a share of the peak.

    With w warm-up steps and N steps, update s = 0 … N−1 has

        s < w:   (s + 1) / w                                       the first is 1/w, not 0; update w − 1 is at the peak
        s ≥ w:   final + (1 − final) (1 + cos(π t)) / 2,   t = (s − w + 1) / (N − w)      the last is exactly `final`

    :param update: s, optimizer updates done before this one.
    :param final: share of the peak at the last update.
    """
    if update < warmup_steps:
        return (update + 1) / warmup_steps
    progress = min(1.0, (update - warmup_steps + 1) / max(1, steps - warmup_steps))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def ramp(update: int, *, steps: int, decades: float) -> float:
    """Learning rate of one update as a share of the last: 10^(−decades) at the first, 1 at the last, the same factor between any two.

    :param update: optimizer updates done before this one.
    """
    return float(10 ** (-decades * (1 - update / max(1, steps - 1))))
