"""Findings of a diagnosis, as data: removable layers, layers that are needed, trends with depth. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import median
from typing import Literal

from mixln.diagnostics.results import (
    Angular,
    Diagnosis,
    Drop,
    Drops,
    Experts,
    Gradients,
    Jacobian,
    RemovedSet,
    Selection,
)
from mixln.findings import Finding

CHEAP = 0.01
"""Relative loss increase below which layers count as removable, at the upper end of the interval."""
LEVEL = 0.05
"""Significance level of trends over layers."""
USABLE = 0.7
"""Spearman's ρ above which the first-order estimate counts as a usable ranking of layers."""
EXACT = 8
"""Largest number of pairs for an exact p-value of a rank correlation, by enumerating all permutations (8! = 40,320)."""
Trend = Literal["falling", "rising", "none"]


@dataclass(frozen=True, kw_only=True)
class NotFinite(Finding):
    """Layers whose removal, each by itself, makes the measure infinite or NaN."""

    layers: tuple[int, ...]
    measure: str


@dataclass(frozen=True, kw_only=True)
class NoInterval(Finding):
    """There is only one sequence, so drops have no intervals."""


@dataclass(frozen=True, kw_only=True)
class CheapestRemoval(Finding):
    """The layers whose removal costs least.

    :param removable: whether the loss increase is below `CHEAP` at the upper end of the interval. If so, `drop` is the longest such
        block, else the one with the smallest increase.
    :param low: lower end of the simultaneous 95% interval of the change over all layers and blocks (Bonferroni); `high`: upper end.
    :param original: loss of the whole model, in `unit`.
    """

    drop: Drop
    removable: bool
    low: float
    high: float
    original: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class HarmfulLayers(Finding):
    """Layers whose removal, each by itself, significantly lowers the loss."""

    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LeastChange(Finding):
    """The layer whose removal does least harm, for measures other than the loss."""

    layer: int
    change: float
    measure: str


@dataclass(frozen=True, kw_only=True)
class MostNeeded(Finding):
    """The layer with the largest drop.

    :param next_layer: layer with the second-largest drop.
    :param others: median change over all other layers.
    :param original: measure of the whole model, in `unit`.
    :param judgement: `none-needed`: the interval of its harm does not lie above 0; `most-needed`: it lies above that of the next layer;
        `not-separated`: the two overlap.
    """

    drop: Drop
    next_layer: int
    others: float
    original: float
    measure: str
    unit: str
    judgement: Literal["most-needed", "not-separated", "none-needed"]


@dataclass(frozen=True, kw_only=True)
class DepthTrend(Finding):
    """Trend of the drop, with the sign of harm, over depth.

    :param correlation: Spearman's ρ of drop and depth; `p`: its two-sided p-value.
    :param first_half: median drop of the first half of the layers; `second_half`: of the second half.
    """

    trend: Trend
    correlation: float
    p: float
    first_half: float
    second_half: float


@dataclass(frozen=True, kw_only=True)
class StreamTurning(Finding):
    """The layers that turn the residual stream most and least: (layer, angle as a fraction of π)."""

    most: tuple[int, float]
    least: tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class GateAgreement(Finding):
    """Agreement of the first-order estimate of the loss increase with the exact drop.

    :param correlation: Spearman's ρ over layers.
    :param samples: number of tokens or images for the gradient; `unit`: unit of the loss.
    """

    correlation: float
    usable: bool
    samples: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class DefinitionsDiffer(Finding):
    """Layers whose drop depends on whether their norms on the stream are removed too."""

    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class IdentityTrend(Finding):
    """Trend over depth of the layers' distance from an identity map.

    :param correlation: Spearman's ρ of ‖J − I‖ and depth; `p`: its p-value. Both `None` for fewer than four layers or equal values.
    :param nearest: the layer nearest to an identity map, and its root mean square ‖(J − I)v‖ over random unit vectors v.
    :param tokens: number of sampled tokens.
    """

    trend: Trend
    correlation: float | None
    p: float | None
    nearest: tuple[int, float]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class GradientsNotFinite(Finding):
    """Layers whose gradient is not finite.

    :param initial: whether the weights were re-initialised.
    """

    layers: tuple[int, ...]
    initial: bool


@dataclass(frozen=True, kw_only=True)
class BestRemoval(Finding):
    """The sets of layers or branches to remove together, from the least harm to the most.

    :param selection: how they were measured.
    :param ranked: those with a finite measure.
    """

    selection: Selection
    ranked: tuple[RemovedSet, ...]


@dataclass(frozen=True, kw_only=True)
class IdleExperts(Finding):
    """Experts that the routers choose least.

    :param layers: number of layers with experts.
    :param never: (layer, expert) of those that were never chosen; layers are counted from 1, experts from 0.
    :param least: (layer, expert) of the least used; `share`: the share of tokens for which it was chosen.
    :param even: that share if all experts were used equally.
    """

    layers: int
    never: tuple[tuple[int, int], ...]
    least: tuple[int, int]
    share: float
    even: float


def findings(diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """The findings of a diagnosis, computed from its numbers and not stored.

    Layers and blocks that are selected among many are judged by simultaneous intervals (Bonferroni).
    """
    drops = diagnosis.drops
    return (
        *(_of_drops(drops) if drops else ()),
        _turning(diagnosis.angular),
        *(_gates(diagnosis, drops) if drops else ()),
        *(_definitions(drops) if drops else ()),
        *([_identity(diagnosis.jacobian)] if diagnosis.jacobian else []),
        *(_sets(diagnosis.selection) if diagnosis.selection else ()),
        *([_idle(diagnosis.experts)] if diagnosis.experts else []),
    )


def _sets(selection: Selection) -> Iterator[Finding]:
    sign = 1 if selection.better == "lower" else -1
    finite = [one for one in selection.sets if math.isfinite(one.change)]
    if finite:
        yield BestRemoval(selection=selection, ranked=tuple(sorted(finite, key=lambda one: sign * one.change)))


def _idle(use: Experts) -> IdleExperts:
    shares = {
        (layer, expert): share
        for layer, row in zip(use.layers, use.chosen, strict=True)
        for expert, share in enumerate(row)
    }
    least = min(shares, key=shares.__getitem__)
    return IdleExperts(
        layers=len(use.layers),
        never=tuple(place for place, share in shares.items() if share == 0),
        least=least,
        share=shares[least],
        even=use.per_token / len(use.chosen[0]),
    )


def gradients_not_finite(diagnosis: Diagnosis) -> tuple[GradientsNotFinite, ...]:
    """A finding for the loaded and one for the re-initialised weights, each only if some gradients are not finite."""

    def broken(gradients: Gradients | None) -> tuple[int, ...]:
        if gradients is None:
            return ()
        pairs = enumerate(zip(gradients.norm.attention, gradients.norm.feed_forward, strict=True), start=1)
        return tuple(layer for layer, pair in pairs if not all(map(math.isfinite, pair)))

    states = ((False, broken(diagnosis.gradients)), (True, broken(diagnosis.initial)))
    return tuple(GradientsNotFinite(layers=layers, initial=initial) for initial, layers in states if layers)


def gate_estimate(diagnosis: Diagnosis) -> tuple[float, ...]:
    """First-order estimate of the loss increase without each layer, −∂loss/∂g summed over its two gates. Empty without gradients."""
    if diagnosis.gradients is None:
        return ()
    gate = diagnosis.gradients.gate
    return tuple(-a - f for a, f in zip(gate.attention, gate.feed_forward, strict=True))


def gate_agreement(diagnosis: Diagnosis) -> tuple[float, float] | None:
    """Spearman's ρ of :func:`gate_estimate` with the exact change of the loss, and its p-value."""
    if diagnosis.gradients is None or diagnosis.drops is None or diagnosis.drops.measure != "loss":
        return None
    # A gate of 0 zeroes the branch, so the zeroed drops are the exact counterpart.
    exact = diagnosis.drops.zeroed or diagnosis.drops.skipped
    if not (estimate := gate_estimate(diagnosis)):
        return None
    return rank_correlation([estimate[drop.first - 1] for drop in exact], [drop.change for drop in exact])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Spearman's ρ of the finite pairs and its two-sided p-value, which is exact for up to `EXACT` pairs.

    :returns: `None` for fewer than four pairs, or if one side is constant.
    """
    import numpy as np
    from scipy import stats

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 4 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    ranks = [stats.rankdata(side) - (len(pairs) + 1) / 2 for side in zip(*pairs, strict=True)]
    scale = np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum())
    correlation = float(ranks[0] @ ranks[1] / scale)
    if len(pairs) > EXACT:
        return correlation, float(stats.spearmanr(*zip(*pairs, strict=True)).pvalue)  # type: ignore[attr-defined]
    permuted = np.array(list(permutations(ranks[1]))) @ ranks[0] / scale
    # 1e-9: permutations with an equal correlation count in spite of rounding.
    return correlation, float((np.abs(permuted) >= abs(correlation) - 1e-9).mean())


def _of_drops(drops: Drops) -> Iterator[Finding]:
    if broken := tuple(drop.first for drop in drops.skipped if not math.isfinite(drop.change)):
        yield NotFinite(layers=broken, measure=drops.measure)
    if drops.measure == "loss":
        yield from _removable(drops)
    elif finite := _finite(drops.skipped):
        least = min(finite, key=lambda drop: drops.harm * drop.change)
        yield LeastChange(layer=least.first, change=least.change, measure=drops.measure)
    yield from _needed(drops)
    yield from _depth(drops)


def _finite(drops: Sequence[Drop]) -> list[Drop]:
    return [drop for drop in drops if math.isfinite(drop.change)]


def _simultaneous(drop: Drop, drops: Drops) -> tuple[float, float] | None:
    """Simultaneous 95% interval of the change over all measured layers and blocks (Bonferroni); `None` if it has no interval."""
    from scipy import stats

    if drop.low is None or drop.high is None:
        return None
    tried = len(drops.skipped) + len(drops.blocks)
    # The stored interval is a single 95% one: scale its half-width by the ratio of the quantiles.
    single, corrected = (stats.t.ppf(1 - 0.025 / count, drops.sequences - 1) for count in (1, tried))
    half = float(corrected / single) * (drop.high - drop.low) / 2
    return drop.change - half, drop.change + half


def _removable(drops: Drops) -> Iterator[Finding]:
    measured = [
        (drop, interval)
        for drop in _finite((*drops.skipped, *drops.blocks))
        if (interval := _simultaneous(drop, drops)) is not None
    ]
    if not measured:
        if _finite(drops.skipped):
            yield NoInterval()
        return
    cheap = [entry for entry in measured if entry[1][1] < CHEAP * drops.original]
    if cheap:
        chosen, (low, high) = max(cheap, key=lambda entry: (entry[0].last - entry[0].first, -entry[0].change))
    else:
        chosen, (low, high) = min(measured, key=lambda entry: entry[0].change)
    yield CheapestRemoval(
        drop=chosen, removable=bool(cheap), low=low, high=high, original=drops.original, unit=drops.unit
    )
    if harmful := tuple(drop.first for drop, (_, high) in measured if drop.first == drop.last and high < 0):
        yield HarmfulLayers(layers=harmful)


def _needed(drops: Drops) -> Iterator[Finding]:
    ranked = sorted(_finite(drops.skipped), key=lambda drop: -drops.harm * drop.change)
    if len(ranked) < 2:
        return
    most, next_ = ranked[:2]
    intervals = [interval for drop in (most, next_) if (interval := _simultaneous(drop, drops)) is not None]
    if len(intervals) < 2:
        return
    worst, other = (sorted(drops.harm * end for end in interval) for interval in intervals)
    separated = "most-needed" if worst[0] > other[1] else "not-separated"
    yield MostNeeded(
        drop=most,
        next_layer=next_.first,
        others=median(drop.change for drop in ranked[1:]),
        original=drops.original,
        measure=drops.measure,
        unit=drops.unit,
        judgement="none-needed" if worst[0] <= 0 else separated,
    )


def _depth(drops: Drops) -> Iterator[Finding]:
    """Whether the drop falls or rises with depth, on which the papers disagree."""
    finite = _finite(drops.skipped)
    harm = [drops.harm * drop.change for drop in finite]
    test = rank_correlation([drop.first for drop in finite], harm)
    if test is not None:
        half = len(harm) // 2
        yield DepthTrend(
            trend=_trend(*test),
            correlation=test[0],
            p=test[1],
            first_half=median(harm[:half]),
            second_half=median(harm[-half:]),
        )


def _trend(correlation: float, p: float) -> Trend:
    if p >= LEVEL:
        return "none"
    return "falling" if correlation < 0 else "rising"


def _turning(angular: Angular) -> StreamTurning:
    steps = [row[0] for row in angular.distance]
    most, least = (pick(range(len(steps)), key=steps.__getitem__) for pick in (max, min))
    return StreamTurning(most=(most + 1, steps[most]), least=(least + 1, steps[least]))


def _gates(diagnosis: Diagnosis, drops: Drops) -> Iterator[Finding]:
    agreement = gate_agreement(diagnosis)
    if agreement is not None and diagnosis.gradients is not None:
        yield GateAgreement(
            correlation=agreement[0],
            usable=agreement[0] > USABLE and agreement[1] < LEVEL,
            samples=diagnosis.gradients.tokens,
            unit=drops.unit,
        )


def _definitions(drops: Drops) -> Iterator[Finding]:
    """Layers whose two drops differ by more than 10% of the larger one and by more than the half-width of the skipped one's interval."""
    differ = tuple(
        skipped.first
        for skipped, zeroed in zip(drops.skipped, drops.zeroed, strict=False)
        if skipped.low is not None
        and skipped.high is not None
        and abs(skipped.change - zeroed.change)
        > max(0.1 * max(abs(skipped.change), abs(zeroed.change)), (skipped.high - skipped.low) / 2)
    )
    if differ:
        yield DefinitionsDiffer(layers=differ)


def _identity(jacobian: Jacobian) -> IdentityTrend:
    test = rank_correlation(range(len(jacobian.typical)), jacobian.typical)
    least = min(range(len(jacobian.typical)), key=jacobian.typical.__getitem__)
    correlation, p = test or (None, None)
    return IdentityTrend(
        trend="none" if test is None else _trend(*test),
        correlation=correlation,
        p=p,
        nearest=(least + 1, jacobian.typical[least]),
        tokens=jacobian.tokens,
    )
