"""Learning-rate schedules: linear warm-up with cosine decay, and an exponential ramp."""

from __future__ import annotations

import math


def factor(update: int, *, steps: int, warmup_steps: int, final: float) -> float:
    """Learning rate of an update as a share of the peak.

    With w warm-up steps and N steps, update s = 0 … N−1 has

        s < w:   (s + 1) / w                                       the first is 1/w, not 0; update w − 1 is at the peak
        s ≥ w:   final + (1 − final) (1 + cos(π t)) / 2,   t = (s − w + 1) / (N − w)      the last is exactly `final`

    :param update: s, number of updates before this one.
    :param final: share of the peak at the last update.
    """
    if update < warmup_steps:
        return (update + 1) / warmup_steps
    progress = min(1.0, (update - warmup_steps + 1) / max(1, steps - warmup_steps))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def ramp(update: int, *, steps: int, decades: float) -> float:
    """Learning rate of an update as a share of the last one: a geometric sequence from 10^(−decades) to 1.

    :param update: number of updates before this one.
    """
    return float(10 ** (-decades * (1 - update / max(1, steps - 1))))
