"""What the figures of a diagnosis carry, in sentences. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from scipy import stats

from mixln.diagnostics.results import Angular, Diagnosis, Drop, Drops, Jacobian

CHEAP = 0.01
"""Layers can go if the loss rises by less than this share of itself, at the upper end of the interval."""
LEVEL = 0.05
"""Level of significance of a trend over layers."""


def verdict(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The sentences: what can go, what must stay, how it goes with depth, and whether the cheap figures agree with the exact one."""
    found = [_turning(diagnosis.angular)]
    if (drops := diagnosis.drops) is not None:
        found = [
            *(_removable(drops) if drops.measure == "loss" else _changing(drops)),
            _needed(drops),
            _depth(drops),
            *found,
        ]
        found += _gates(diagnosis, drops) + _definitions(drops)
    if diagnosis.jacobian is not None:
        found.append(_identity(diagnosis.jacobian))
    return tuple(sentence for sentence in found if sentence)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Spearman's ρ and its p-value; `None` for fewer than four pairs or a constant side."""
    if len(first) < 4 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    result: Any = stats.spearmanr(first, second)
    return float(result.statistic), float(result.pvalue)


def layers(first: int, last: int) -> str:
    """`layer 3`, or `layers 3 to 5`."""
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def _removable(drops: Drops) -> list[str]:
    measured = [drop for drop in (*drops.skipped, *drops.blocks) if drop.low is not None and drop.high is not None]
    if not measured:
        return ["One sequence gives no interval, so nothing is said about which layers can go: give more --tokens."]
    helped = [drop for drop in drops.skipped if drop.high is not None and drop.high < 0]
    cheap = [drop for drop in measured if drop.high is not None and drop.high < CHEAP * drops.original]
    sentences = []
    if cheap:
        longest = max(cheap, key=lambda drop: (drop.last - drop.first, -drop.change))
        named = layers(longest.first, longest.last)
        sentences.append(f"{named.capitalize()} can go for {_cost(longest, drops)}.")
    else:
        cheapest = min(measured, key=lambda drop: drop.change)
        named = layers(cheapest.first, cheapest.last)
        sentences.append(
            f"No layer can go for less than {CHEAP:.0%} of the loss; the cheapest, {named}, takes {_cost(cheapest, drops)}."
        )
        two = [drop for drop in drops.blocks if drop.last == drop.first + 1]
        if two:
            pair = min(two, key=lambda drop: drop.change)
            sentences.append(f"Two together, {layers(pair.first, pair.last)}, take {_cost(pair, drops)}.")
    if helped:
        listed = ", ".join(str(drop.first) for drop in helped)
        sentences.append(
            f"Without {'layer' if len(helped) == 1 else 'any one of the layers'} {listed} the loss is lower than with it."
        )
    return sentences


def _cost(drop: Drop, drops: Drops) -> str:
    assert drop.low is not None
    assert drop.high is not None
    share = [100 * value / drops.original for value in (drop.change, drop.low, drop.high)]
    return (
        f"{share[0]:+.2g}% loss [{share[1]:+.2g}, {share[2]:+.2g}] "
        f"({drops.original:.3f} to {drop.value:.3f} {drops.unit}; perplexity {math.expm1(drop.change):+.1%})"
    )


def _changing(drops: Drops) -> list[str]:
    least = min(drops.skipped, key=lambda drop: drops.harm * drop.change)
    return [
        f"By {drops.measure}, layer {least.first} matters least ({least.change:.3g}). "
        "How much of that a task would feel, this measure does not say."
    ]


def _needed(drops: Drops) -> str:
    most = max(drops.skipped, key=lambda drop: drops.harm * drop.change)
    others = [drops.harm * drop.change for drop in drops.skipped if drop is not most]
    if not others:
        return ""
    return (
        f"Layer {most.first} matters most: without it the {drops.measure} is {most.value:.3g} {_units(drops)}instead of "
        f"{drops.original:.3g}; the median of the other layers is {drops.harm * median(others):+.3g}."
    )


def _units(drops: Drops) -> str:
    return f"{drops.unit} " if drops.measure == "loss" else ""


def _depth(drops: Drops) -> str:
    """Whether the drop falls or rises with depth, which is what the papers disagree about."""
    harm = [drops.harm * drop.change for drop in drops.skipped]
    trend = rank_correlation(range(len(harm)), harm)
    if trend is None:
        return ""
    half = len(harm) // 2
    said = f"median drop {median(harm[:half]):.3g} in the first half of the layers, {median(harm[-half:]):.3g} in the second"
    if trend[1] >= LEVEL:
        return f"The drop has no clear trend with depth (Spearman's ρ {trend[0]:+.2f}, p {trend[1]:.2g}; {said})."
    direction = "less" if trend[0] < 0 else "more"
    return (
        f"Deeper layers matter {direction} (Spearman's ρ of drop and depth {trend[0]:+.2f}, p {trend[1]:.2g}; {said})."
    )


def _turning(angular: Angular) -> str:
    steps = [row[0] for row in angular.distance]
    least, most = (pick(range(len(steps)), key=steps.__getitem__) for pick in (min, max))
    return (
        f"The residual stream turns most in layer {most + 1} (angular distance {steps[most]:.2f} π) "
        f"and least in layer {least + 1} ({steps[least]:.3f} π)."
    )


def _gates(diagnosis: Diagnosis, drops: Drops) -> list[str]:
    if diagnosis.gradients is None or drops.measure != "loss":
        return []
    gate = diagnosis.gradients.gate
    estimate = [-a - f for a, f in zip(gate.attention, gate.feed_forward, strict=True)]
    agreement = rank_correlation(estimate, [drop.change for drop in drops.skipped])
    if agreement is None:
        return []
    use = (
        "a usable ranking here"
        if agreement[0] > 0.7 and agreement[1] < LEVEL
        else "no substitute for the exact drop here"
    )
    return [f"The one-pass estimate by gates is {use} (Spearman's ρ with the exact drop {agreement[0]:+.2f})."]


def _definitions(drops: Drops) -> list[str]:
    differ = [
        skipped.first
        for skipped, zeroed in zip(drops.skipped, drops.zeroed, strict=False)
        if abs(skipped.change - zeroed.change) > 0.1 * max(abs(skipped.change), abs(zeroed.change))
    ]
    if not differ:
        return []
    return [
        f"In {len(differ)} of {len(drops.skipped)} layers the drop depends by more than a tenth on whether the norms on the stream "
        "go with the layer or stay: read both columns."
    ]


def _identity(jacobian: Jacobian) -> str:
    trend = rank_correlation(range(len(jacobian.typical)), jacobian.typical)
    least = min(range(len(jacobian.typical)), key=jacobian.typical.__getitem__)
    said = (
        f"layer {least + 1} is nearest to an identity map, ‖J − I‖ in a random direction {jacobian.typical[least]:.2g}"
    )
    if trend is None:
        return f"Of all layers, {said}."
    if trend[1] >= LEVEL:
        return f"The layers do not approach an identity map with depth (Spearman's ρ {trend[0]:+.2f}, p {trend[1]:.2g}); {said}."
    words = "approach" if trend[0] < 0 else "move away from"
    return f"The layers {words} an identity map with depth (Spearman's ρ {trend[0]:+.2f}, p {trend[1]:.2g}); {said}."
