"""Where a training whose learning rate rises breaks, and how: a pure function of its curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from mixln.search.results import Failure, RampOutcome

WINDOW = 5
"""Records over which the loss is smoothed, by their median."""
IN_A_ROW = 3
"""Sound records after which a training counts as one that trains: one alone may be luck."""
TOLERANCE = 0.1
"""Of what has been learnt, the share that may be lost again while a training still counts as one that trains."""
MARGIN = 0.02
"""Below the unigram baseline by less than this is no better than it, nats per token."""


def ramp_outcome(rates: Sequence[float], losses: Sequence[float | None], *, floor: float) -> RampOutcome:
    """Reads the ramp of one training.

    With s the loss smoothed over the last `WINDOW` records, m the least s so far and s₀ the first, a record is sound where
    s ≤ m + `TOLERANCE` · (s₀ − min(m, floor)), and, once m was below `floor`, s is too. The highest rate that trains is that of the
    last of `IN_A_ROW` sound records, if the model had come below `floor` by then. A stretch that is not sound, and is followed by so
    many that are, is a spike that was recovered from.

    :param rates: learning rate of each record, ascending.
    :param losses: training loss of each record, nats per token; `None` or not finite where it overflowed. It may be shorter than
        `rates`: then the training was ended there, because it diverged.
    :param floor: the loss of a model that has learnt frequencies only.
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
    # What broke in the very last records has not moved their median yet.
    bound = least + TOLERANCE * (start - min(least, floor))
    broken = last < len(rates) - 1 or min(finite[-(WINDOW // 2) :]) > bound or math.isinf(finite[-1])
    return RampOutcome(
        # The median of the last records is that of their middle.
        rate=(rates[max(0, last - WINDOW // 2)] if broken else rates[last]) if learnt else None,
        failure=_failure(smooth, finite, floor, cut=len(losses) < len(rates)) if broken or not learnt else "none",
        spikes=len(spikes) if learnt else 0,
        first_spike=rates[spikes[0]] if spikes and learnt else None,
        least=min(smooth),
        best_rate=rates[smooth.index(min(smooth))],
    )


def smoothed(losses: Sequence[float]) -> list[float]:
    """Of each record the median of the last `WINDOW`, itself among them; of the first ones, of those there are."""
    return [median(losses[max(0, index - WINDOW + 1) : index + 1]) for index in range(len(losses))]


def _failure(smooth: Sequence[float], losses: Sequence[float], floor: float, *, cut: bool) -> Failure:
    """How it ended."""
    if cut or math.isinf(losses[-1]) or smooth[-1] > smooth[0]:
        return "diverges"
    return "stalls" if smooth[-1] >= floor - MARGIN else "worsens"
