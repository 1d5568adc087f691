"""What the figures of a diagnosis carry, in sentences. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from statistics import median

from mixln.diagnostics.results import Angular, Diagnosis, Drop, Drops, Jacobian

CHEAP = 0.01
"""Layers can go if the loss rises by less than this share of itself, at the upper end of the interval."""
LEVEL = 0.05
"""Level of significance of a trend over layers."""
EXACT = 8
"""Pairs up to which the p-value of a rank correlation is counted over all permutations."""
LARGEST = 700.0
"""Nats that e can still be raised to."""


def verdict(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The sentences: what can go, what must stay, how it goes with depth, and whether the cheap figures agree with the exact one.

    What is picked out of many layers and blocks is judged by intervals that hold for all of them at once (Bonferroni).
    """
    found = [_turning(diagnosis.angular)]
    if (drops := diagnosis.drops) is not None:
        found = [
            _endless(drops),
            *(_removable(drops) if drops.measure == "loss" else _changing(drops)),
            _needed(drops),
            _depth(drops),
            *found,
            _gates(diagnosis),
            _definitions(drops),
        ]
    if diagnosis.jacobian is not None:
        found.append(_identity(diagnosis.jacobian))
    return tuple(sentence for sentence in found if sentence)


def gate_estimate(diagnosis: Diagnosis) -> tuple[float, ...]:
    """The change of the loss without each layer that its two gates foretell, −∂loss/∂g summed over both; empty without gradients."""
    if diagnosis.gradients is None:
        return ()
    gate = diagnosis.gradients.gate
    return tuple(-a - f for a, f in zip(gate.attention, gate.feed_forward, strict=True))


def gate_agreement(diagnosis: Diagnosis) -> tuple[float, float] | None:
    """Spearman's ρ of that estimate with the exact change, and its p-value: with zeroed branches, for that is what a gate does."""
    if diagnosis.gradients is None or diagnosis.drops is None or diagnosis.drops.measure != "loss":
        return None
    exact = diagnosis.drops.zeroed or diagnosis.drops.skipped
    if not (estimate := gate_estimate(diagnosis)):
        return None
    return rank_correlation([estimate[drop.first - 1] for drop in exact], [drop.change for drop in exact])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Spearman's ρ and its two-sided p-value over the pairs that are finite, exact for up to eight.

    :returns: `None` for fewer than four pairs or a constant side.
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
    every = np.array(list(permutations(ranks[1]))) @ ranks[0] / scale
    return correlation, float((np.abs(every) >= abs(correlation) - 1e-9).mean())


def layers(first: int, last: int) -> str:
    """`layer 3`, or `layers 3 to 5`."""
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def _endless(drops: Drops) -> str:
    broken = [drop.first for drop in drops.skipped if not math.isfinite(drop.change)]
    if not broken:
        return ""
    return f"{_without(broken)} the {drops.measure} is not finite."


def _without(numbers: Sequence[int]) -> str:
    return f"Without {'layer' if len(numbers) == 1 else 'any one of the layers'} {', '.join(map(str, numbers))}"


def _finite(drops: Sequence[Drop]) -> list[Drop]:
    return [drop for drop in drops if math.isfinite(drop.change)]


def _simultaneous(drop: Drop, drops: Drops) -> tuple[float, float] | None:
    """The change's 95% interval that holds for all layers and blocks at once; `None` where there is no interval."""
    from scipy import stats

    if drop.low is None or drop.high is None:
        return None
    tried = len(drops.skipped) + len(drops.blocks)
    one, all_ = (stats.t.ppf(1 - 0.025 / count, drops.sequences - 1) for count in (1, tried))
    half = float(all_ / one) * (drop.high - drop.low) / 2
    return drop.change - half, drop.change + half


def _removable(drops: Drops) -> list[str]:
    measured = [
        (drop, interval)
        for drop in _finite((*drops.skipped, *drops.blocks))
        if (interval := _simultaneous(drop, drops)) is not None
    ]
    if not measured:
        return ["One sequence gives no interval, so nothing is said about which layers can go: give more --tokens."]
    helped = [drop.first for drop, (_, high) in measured if drop.first == drop.last and high < 0]
    cheap = [entry for entry in measured if entry[1][1] < CHEAP * drops.original]
    if cheap:
        chosen, interval = max(cheap, key=lambda entry: (entry[0].last - entry[0].first, -entry[0].change))
        said = f"{_named(chosen).capitalize()} can go for {_share(chosen, interval, drops)} loss."
    else:
        chosen, interval = min(measured, key=lambda entry: entry[0].change)
        said = (
            f"No layer can surely go for less than {CHEAP:.0%} of the loss: "
            f"the cheapest, {_named(chosen)}, takes {_share(chosen, interval, drops)}."
        )
    tokens = drops.unit == "nats per token"
    perplexity = f", the perplexity {math.expm1(min(chosen.change, LARGEST)):+.1%}" if tokens else ""
    sentences = [
        said,
        f"Without {_named(chosen)} the loss is {chosen.value:.3f} {drops.unit} instead of {drops.original:.3f}{perplexity}; "
        "the 95% interval holds for all that was tried at once.",
    ]
    if helped:
        sentences.append(f"{_without(helped)} the loss is lower than with it.")
    return sentences


def _named(drop: Drop) -> str:
    return layers(drop.first, drop.last)


def _share(drop: Drop, interval: tuple[float, float], drops: Drops) -> str:
    """The change as a share of the loss: `+0.4% [+0.3, +0.5]`."""
    change, low, high = (100 * value / drops.original for value in (drop.change, *interval))
    return f"{change:+.2g}% [{low:+.2g}, {high:+.2g}]"


def _changing(drops: Drops) -> list[str]:
    finite = _finite(drops.skipped)
    if not finite:
        return []
    least = min(finite, key=lambda drop: drops.harm * drop.change)
    return [
        f"By {drops.measure}, layer {least.first} matters least ({least.change:.3g}). "
        "How much of that a task would feel, this measure does not say."
    ]


def _needed(drops: Drops) -> str:
    ranked = sorted(_finite(drops.skipped), key=lambda drop: -drops.harm * drop.change)
    if len(ranked) < 2:
        return ""
    most, next_ = ranked[:2]
    intervals = [_simultaneous(drop, drops) for drop in (most, next_)]
    if intervals[0] is None or intervals[1] is None:
        return ""
    worst, other = (sorted(drops.harm * end for end in interval) for interval in intervals if interval is not None)
    if worst[0] <= 0:
        return f"Here no single layer's drop is told apart from none: layer {most.first} has the largest, {most.change:+.2g}."
    if worst[0] <= other[1]:
        return f"Layer {most.first} has the largest drop, {most.change:+.3g}, not told apart from that of layer {next_.first}."
    return (
        f"Layer {most.first} matters most: without it the {drops.measure} is {most.value:.3g} {_units(drops)}instead of "
        f"{drops.original:.3g}; the median drop of the other layers is {median(drop.change for drop in ranked[1:]):+.3g}."
    )


def _units(drops: Drops) -> str:
    return f"{drops.unit} " if drops.measure == "loss" else ""


def _depth(drops: Drops) -> str:
    """Whether the drop falls or rises with depth, which is what the papers disagree about."""
    finite = _finite(drops.skipped)
    harm = [drops.harm * drop.change for drop in finite]
    trend = rank_correlation([drop.first for drop in finite], harm)
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


def _gates(diagnosis: Diagnosis) -> str:
    agreement = gate_agreement(diagnosis)
    if agreement is None:
        return ""
    use = (
        "a usable ranking here"
        if agreement[0] > 0.7 and agreement[1] < LEVEL
        else "no substitute for the exact drop here"
    )
    assert diagnosis.gradients is not None
    assert diagnosis.drops is not None
    looked_at = "images" if diagnosis.drops.unit == "nats per image" else "tokens"
    return (
        f"The one-pass estimate by gates, from {diagnosis.gradients.tokens:,} {looked_at}, is {use} "
        f"(Spearman's ρ with the exact drop {agreement[0]:+.2f})."
    )


def _definitions(drops: Drops) -> str:
    """Where the two definitions differ by more than a tenth, and by more than either's interval is wide."""
    differ = [
        one.first
        for one, other in zip(drops.skipped, drops.zeroed, strict=False)
        if one.low is not None
        and one.high is not None
        and abs(one.change - other.change)
        > max(0.1 * max(abs(one.change), abs(other.change)), (one.high - one.low) / 2)
    ]
    if not differ:
        return ""
    return (
        f"In layer{'s' * (len(differ) > 1)} {', '.join(map(str, differ))} the drop depends on whether the norms on the stream "
        "go with the layer or stay: read both columns."
    )


def _identity(jacobian: Jacobian) -> str:
    trend = rank_correlation(range(len(jacobian.typical)), jacobian.typical)
    least = min(range(len(jacobian.typical)), key=jacobian.typical.__getitem__)
    said = f"layer {least + 1} is nearest, ‖J − I‖ in a random direction {jacobian.typical[least]:.2g}, from {jacobian.tokens} tokens"
    if trend is None:
        return f"Of an identity map, {said}."
    words = "come nearer to" if trend[0] < 0 else "move away from"
    if trend[1] >= LEVEL:
        words = "do not come nearer to"
    return f"The layers {words} an identity map with depth (Spearman's ρ {trend[0]:+.2f}, p {trend[1]:.2g}); {said}."
