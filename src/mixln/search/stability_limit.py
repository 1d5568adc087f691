"""The highest stable learning rate in a ramp, and how the training fails above it: a pure function of the loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from mixln.search.results import Failure, RampOutcome

WINDOW = 5
"""Number of records in the running median that smooths the loss."""
IN_A_ROW = 3
"""Consecutive sound records required for stability; a single one may be a fluctuation."""
TOLERANCE = 0.1
"""Share of the decrease of the loss that may be lost again in a sound record."""
MARGIN = 0.02
"""A loss counts as below the unigram baseline only by more than this, nats per token."""


def ramp_outcome(rates: Sequence[float], losses: Sequence[float | None], *, floor: float) -> RampOutcome:
    """Determines the stability limit from a ramp.

    Let s be the loss smoothed over the last `WINDOW` records, m the lowest s so far and s₀ the first s. A record is sound if
    s ≤ m + `TOLERANCE` · (s₀ − min(m, floor)) and, once m has been below `floor`, s is below it too. The highest stable learning rate
    is that of the last `IN_A_ROW` consecutive sound records, if the loss has been below `floor` by then. Unsound records that are
    followed by `IN_A_ROW` sound ones are a loss spike with recovery.

    :param rates: learning rate of each record, ascending.
    :param losses: training loss of each record, nats per token; `None` or not finite if it overflowed. Shorter than `rates` if the
        training was stopped because it diverged.
    :param floor: loss of the unigram baseline, nats per token.
    """
    finite = [loss if loss is not None and math.isfinite(loss) else math.inf for loss in losses]
    smooth = smoothed(finite)
    start = next((value for value in smooth if math.isfinite(value)), math.inf)
    least, sound = math.inf, []
    for value in smooth:
        least = min(least, value)
        fallen = least < floor - MARGIN <= value
        sound.append(value <= least + TOLERANCE * (start - min(least, floor)) and not fallen)
    last = max(
        (index for index in range(IN_A_ROW - 1, len(sound)) if all(sound[index - IN_A_ROW + 1 : index + 1])), default=-1
    )
    learnt = last >= 0 and min(smooth[: last + 1]) < floor - MARGIN
    spikes = [index for index in range(1, last + 1) if sound[index - 1] and not sound[index]]
    # A failure in the last few records has not changed their median yet, so the raw losses are checked too.
    bound = least + TOLERANCE * (start - min(least, floor))
    broken = last < len(rates) - 1 or min(finite[-(WINDOW // 2) :]) > bound or math.isinf(finite[-1])
    return RampOutcome(
        # The running median lags by half a window.
        rate=(rates[max(0, last - WINDOW // 2)] if broken else rates[last]) if learnt else None,
        failure=_failure(smooth, finite, floor, cut=len(losses) < len(rates)) if broken or not learnt else "none",
        spikes=len(spikes) if learnt else 0,
        first_spike=rates[spikes[0]] if spikes and learnt else None,
        least=min(smooth),
        best_rate=rates[smooth.index(min(smooth))],
    )


def smoothed(losses: Sequence[float]) -> list[float]:
    """The running median over the last `WINDOW` records, over fewer at the start."""
    return [median(losses[max(0, index - WINDOW + 1) : index + 1]) for index in range(len(losses))]


def _failure(smooth: Sequence[float], losses: Sequence[float], floor: float, *, cut: bool) -> Failure:
    """How a ramp failed.

    :param cut: whether the training was stopped before the end of the ramp.
    """
    if cut or math.isinf(losses[-1]) or smooth[-1] > smooth[0]:
        return "diverges"
    return "stalls" if smooth[-1] >= floor - MARGIN else "worsens"
