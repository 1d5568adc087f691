"""The statistics of a comparison, over seeds. Losses in nats per token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from mixln.compare.results import Cell, Interval, PlacementSummary, TrialResult

CONFIDENCE = 0.95


def paired_difference(losses: dict[int, float], baseline: dict[int, float]) -> Interval | None:
    """Mean over common seeds of (loss − baseline loss), with Student's t interval of these paired differences.

    :param losses: seed → loss.
    :returns: `None` without a common seed; no interval with a single one.
    """
    seeds = sorted(losses.keys() & baseline.keys())
    if not seeds:
        return None
    mean, low, high = t_interval([losses[seed] - baseline[seed] for seed in seeds])
    return Interval(mean=mean, low=low, high=high, pairs=len(seeds))


def t_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of n values with Student's t interval, mean ± t_{0.975, n−1} · s / √n; no interval of a single one."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, None, None
    if len(set(values)) == 1:  # of equal values, no rounding error
        return values[0], values[0], values[0]
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return mean, mean - reach, mean + reach


def summarise(
    trials: Sequence[TrialResult],
    *,
    placements: Sequence[str],
    learning_rates: Sequence[float],
    baseline: str,
    titles: dict[str, str],
) -> tuple[PlacementSummary, ...]:
    """One row a placement: its best learning rate against the baseline's best, and both at the common one.

    The best learning rate is the one with the lowest mean loss among those with the most trials that trained. The common
    one is the learning rate at which the most trials of all placements trained, and among those the one with the lowest
    mean loss over placements: it is fair to none, and the same for all.

    :param titles: placement → name of the field.
    """
    rates = sorted(learning_rates)
    cells = {p: {rate: _cell(trials, p, rate) for rate in rates} for p in placements}
    best = {p: min(cells[p].values(), key=_rank).learning_rate for p in placements}
    common = min(rates, key=lambda rate: _common_rank([cells[p][rate] for p in placements]))

    def compared(placement: str, rate: float, baseline_rate: float) -> Cell:
        cell = cells[placement][rate]
        if placement == baseline:
            return cell
        difference = paired_difference(_losses(trials, placement, rate), _losses(trials, baseline, baseline_rate))
        return replace(cell, difference=difference)

    return tuple(
        PlacementSummary(
            placement=placement,
            title=titles[placement],
            init=next(result.trial.init for result in trials if result.trial.placement == placement),
            best=compared(placement, best[placement], best[baseline]),
            common=compared(placement, common, common),
            cells=tuple(compared(placement, rate, rate) for rate in rates),
        )
        for placement in placements
    )


def order(row: PlacementSummary) -> tuple[int, float]:
    """Sorts placements, the first first: most seeds that trained, then lowest mean loss. A mean over the seeds that
    survived must not beat one over all of them."""
    return _rank(row.best)


def runner_up(
    trials: Sequence[TrialResult], rows: Sequence[PlacementSummary]
) -> tuple[PlacementSummary, Interval] | None:
    """The second placement that trained and its paired difference from the first, each at its best learning rate.

    :returns: `None` without two that trained at a common seed.
    """
    first, second = [*sorted((row for row in rows if row.best.finished), key=order), None, None][:2]
    if first is None or second is None:
        return None
    losses = [_losses(trials, row.placement, row.best.learning_rate) for row in (second, first)]
    difference = paired_difference(*losses)
    return None if difference is None else (second, difference)


def _of(trials: Sequence[TrialResult], placement: str, rate: float) -> list[TrialResult]:
    return [r for r in trials if r.trial.placement == placement and r.trial.learning_rate == rate]


def _losses(trials: Sequence[TrialResult], placement: str, rate: float) -> dict[int, float]:
    return {r.trial.seed: r.loss for r in _of(trials, placement, rate) if r.loss is not None}


def _cell(trials: Sequence[TrialResult], placement: str, rate: float) -> Cell:
    chosen = _of(trials, placement, rate)
    losses = list(_losses(trials, placement, rate).values())
    statuses = [result.status for result in chosen]
    return Cell(
        learning_rate=rate,
        seeds=len(chosen),
        finished=statuses.count("finished"),
        stalled=statuses.count("stalled"),
        diverged=statuses.count("diverged"),
        failed=statuses.count("failed"),
        loss=_mean(losses),
        loss_deviation=float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        bits_per_byte=_mean([r.bits_per_byte for r in chosen if r.bits_per_byte is not None]),
        tokens_per_second=_mean([r.tokens_per_second for r in chosen if r.tokens_per_second is not None]),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rank(cell: Cell) -> tuple[int, float]:
    return (-cell.finished, math.inf if cell.loss is None else cell.loss)


def _common_rank(cells: list[Cell]) -> tuple[int, float]:
    return (-sum(cell.finished for cell in cells), sum(math.inf if c.loss is None else c.loss for c in cells))
