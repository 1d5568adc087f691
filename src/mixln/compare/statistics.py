"""Statistics of a comparison over seeds, for any metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mixln.compare.metrics import Measured
from mixln.compare.results import Cell, Interval, PlacementSummary, alike
from mixln.metrics import Metric
from mixln.runs.trials import TrialResult

CONFIDENCE = 0.95


def paired_difference(values: dict[int, float], baseline: dict[int, float]) -> Interval | None:
    """Mean over common seeds of (value − baseline's value), with Student's t interval of these paired differences.

    :param values: seed → value, for example the loss.
    :returns: `None` without a common seed; no interval with a single one.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    mean, low, high = t_interval([values[seed] - baseline[seed] for seed in seeds])
    return Interval(mean=mean, low=low, high=high, pairs=len(seeds))


def t_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of n values with Student's t interval, mean ± t_{0.975, n−1} · s / √n; no interval of a single one."""
    from scipy import stats  # slow to import, and not needed to show stored results

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, None, None
    if len(set(values)) == 1:  # exact: np.mean and np.std of equal values may have rounding errors
        return values[0], values[0], values[0]
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return mean, mean - reach, mean + reach


def summarise(
    trials: Sequence[TrialResult],
    metric: Metric[Measured],
    *,
    placements: Sequence[str],
    learning_rates: Sequence[float],
    baseline: str,
    titles: dict[str, str],
) -> tuple[PlacementSummary, ...]:
    """One row per placement: its best learning rate against the baseline's best, and both at the common learning rate.

    The best learning rate is the one with the most trials that trained and, among equals, the best mean (lowest loss or highest
    accuracy). The common learning rate is the one at which the most trials of all placements trained and, among equals, the one with
    the best mean over placements; it may suit some placements better than others.

    :param titles: placement → its name in the literature.
    """
    rates = sorted(learning_rates)
    cells = {p: {rate: _cell(trials, p, rate) for rate in rates} for p in placements}
    best = {p: min(cells[p].values(), key=lambda cell: _rank(cell, metric)).learning_rate for p in placements}
    common = min(rates, key=lambda rate: _common_rank([cells[p][rate] for p in placements], metric))

    def compared(placement: str, rate: float, baseline_rate: float) -> Cell:
        cell = cells[placement][rate]
        if placement == baseline:
            return cell
        own, reference = _values(trials, metric, placement, rate), _values(trials, metric, baseline, baseline_rate)
        return replace(cell, difference=paired_difference(own, reference))

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


def order(row: PlacementSummary, metric: Metric[Measured]) -> tuple[int, float]:
    """Sort key of placements, best first: the most seeds that trained, then the best mean. Otherwise a mean over the seeds that survived
    could beat a mean over all seeds."""
    return _rank(row.best, metric)


def runner_up(
    trials: Sequence[TrialResult], rows: Sequence[PlacementSummary], metric: Metric[Measured]
) -> tuple[PlacementSummary, Interval] | None:
    """The second-best placement that trained, and its paired difference from the best, each at its best learning rate.

    :returns: `None` if no two placements trained at a common seed.
    """
    trained = sorted((row for row in rows if row.best.finished), key=lambda row: order(row, metric))
    first, second = [*trained, None, None][:2]
    if first is None or second is None:
        return None
    values = [_values(trials, metric, row.placement, row.best.learning_rate) for row in (second, first)]
    difference = paired_difference(*values)
    return None if difference is None else (second, difference)


def trials_of(trials: Sequence[TrialResult], placement: str, rate: float) -> list[TrialResult]:
    """The trials of one placement at one learning rate."""
    return [r for r in trials if r.trial.placement == placement and r.trial.learning_rate == rate]


def _values(trials: Sequence[TrialResult], metric: Metric[Measured], placement: str, rate: float) -> dict[int, float]:
    values = {r.trial.seed: metric.value(r) for r in alike(trials_of(trials, placement, rate))}
    return {seed: value for seed, value in values.items() if value is not None}


def _cell(trials: Sequence[TrialResult], placement: str, rate: float) -> Cell:
    chosen = trials_of(trials, placement, rate)
    same = alike(chosen)
    losses = [result.loss for result in same if result.loss is not None]
    figures = {name: [r.figures[name] for r in same if name in r.figures] for r in same for name in r.figures}
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
        bits_per_byte=_mean([r.bits_per_byte for r in same if r.bits_per_byte is not None]),
        tokens_per_second=_mean([r.tokens_per_second for r in chosen if r.tokens_per_second is not None]),
        figures={name: float(np.mean(values)) for name, values in figures.items()},
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rank(cell: Cell, metric: Metric[Measured]) -> tuple[int, float]:
    return (-cell.finished, metric.badness(cell))


def _common_rank(cells: list[Cell], metric: Metric[Measured]) -> tuple[int, float]:
    return (-sum(cell.finished for cell in cells), sum(metric.badness(cell) for cell in cells))
