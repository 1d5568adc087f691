"""Sentences of the verdict on a diagnosis."""

from __future__ import annotations

from mixln import formats
from mixln.compare.metrics import PERPLEXITY
from mixln.diagnostics.findings import (
    CHEAP,
    BestRemoval,
    CheapestRemoval,
    DefinitionsDiffer,
    DepthTrend,
    GateAgreement,
    GradientsNotFinite,
    HarmfulLayers,
    IdentityTrend,
    IdleExperts,
    LeastChange,
    MostNeeded,
    NoInterval,
    NotFinite,
    StreamTurning,
    findings,
    gradients_not_finite,
)
from mixln.diagnostics.results import Diagnosis, Drop, Omission
from mixln.findings import Finding
from mixln.report.wording import removal
from mixln.report.wording.phrases import capitalised, layers, listed


def verdict(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Which layers can be removed, which are needed, trends with depth, and whether the cheap estimates agree with the exact drop."""
    return tuple(map(sentence, findings(diagnosis)))


def not_measured(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Measurements that a diagnosis lacks, with the reason."""
    return (*map(_omission, diagnosis.omitted), *map(_not_finite_gradients, gradients_not_finite(diagnosis)))


def sentence(finding: Finding) -> str:
    """The sentence on one finding."""
    match finding:
        case NotFinite():
            return f"{_without(finding.layers)} the {finding.measure} is not finite."
        case NoInterval():
            return (
                "A single sequence gives no confidence interval to tell which layers can be removed: increase --tokens."
            )
        case CheapestRemoval():
            return _removal(finding)
        case HarmfulLayers():
            return f"{_without(finding.layers)} the loss is significantly lower than with it."
        case LeastChange():
            least = f"layer {finding.layer} matters least ({formats.number(finding.change)})"
            return f"By {finding.measure}, {least}; its effect on other measures is not known."
        case MostNeeded():
            return _needed(finding)
        case DepthTrend():
            return _depth(finding)
    return _mechanism(finding)


def _mechanism(finding: Finding) -> str:
    """Sentences on angles, gates, Jacobians, sets and experts."""
    match finding:
        case StreamTurning():
            (most, far), (least, near) = finding.most, finding.least
            return (
                f"The residual stream changes direction most in layer {most} (angular distance {far:.2f} π) and least in layer {least} "
                f"({near:.3f} π)."
            )
        case GateAgreement():
            samples = f"{finding.samples:,} {'images' if 'image' in finding.unit else 'tokens'}"
            use = "is a usable proxy for" if finding.usable else "is not a usable proxy for"
            return (
                f"The first-order estimate of the loss increase, from one backward pass over {samples}, {use} the exact drop here "
                f"(Spearman's ρ between the two {_signed(finding.correlation)})."
            )
        case DefinitionsDiffer():
            return (
                f"In {_numbered(finding.layers)} the drop depends on whether the norms on the stream are removed with the layer: compare "
                "both columns."
            )
        case IdentityTrend():
            return _identity(finding)
        case BestRemoval():
            return removal.best(finding)
        case IdleExperts():
            return removal.idle(finding)
    raise TypeError(f"no sentence for {finding!r}")


def _numbered(numbers: tuple[int, ...]) -> str:
    return f"layer{'s' * (len(numbers) > 1)} {listed(numbers)}"


def _without(numbers: tuple[int, ...]) -> str:
    return f"Without {'any one of ' * (len(numbers) > 1)}{_numbered(numbers)}"


def _removal(finding: CheapestRemoval) -> str:
    drop, name, unit = finding.drop, _layers(finding.drop), finding.unit
    change, low, high = (100 * value / finding.original for value in (drop.change, finding.low, finding.high))
    if finding.removable:
        first = f"{capitalised(name)} can be removed"
    else:
        first = f"No layer can be removed with a loss increase significantly below {CHEAP:.0%}. The cheapest is {name}"
    perplexity = f" (perplexity {PERPLEXITY.say_change(drop.change)})" if unit == "nats per token" else ""
    return (
        f"{first}: the loss changes by {formats.signed(change, 2)}% {formats.interval(low, high)}, from {finding.original:.3f} to "
        f"{drop.value:.3f} {unit}{perplexity}; the 95% interval is simultaneous over all layers and blocks tried."
    )


def _needed(finding: MostNeeded) -> str:
    drop = finding.drop
    match finding.judgement:
        case "none-needed":
            return (
                f"No single layer's drop differs significantly from zero: layer {drop.first} has the largest, "
                f"{formats.signed(drop.change)}."
            )
        case "not-separated":
            return (
                f"Layer {drop.first} has the largest drop, {formats.signed(drop.change)}, not significantly larger than that of layer "
                f"{finding.next_layer}."
            )
        case "most-needed":
            unit = f"{finding.unit} " if finding.measure == "loss" else ""
            return (
                f"Layer {drop.first} matters most: without it the {finding.measure} is {formats.number(drop.value)} {unit}instead "
                f"of {formats.number(finding.original)}; the median drop of the other layers is {formats.signed(finding.others)}."
            )


def _depth(finding: DepthTrend) -> str:
    medians = (
        f"median drop {formats.number(finding.first_half)} in the first half of the layers, {formats.number(finding.second_half)} in the "
        "second"
    )
    statistic = f"{_signed(finding.correlation)}, {formats.p_value(finding.p)}; {medians}"
    if finding.trend == "none":
        return f"The drop has no significant trend with depth (Spearman's ρ {statistic})."
    return f"Deeper layers matter {'less' if finding.trend == 'falling' else 'more'} (Spearman's ρ of drop and depth {statistic})."


def _identity(finding: IdentityTrend) -> str:
    layer, distance = finding.nearest
    size = f"(‖J − I‖ in a random direction {formats.number(distance, 2)}, over {finding.tokens} tokens)"
    if finding.correlation is None or finding.p is None:
        return f"Layer {layer} is nearest to an identity map {size}."
    trend = {
        "falling": "The layers approach an identity map with depth",
        "rising": "The layers move away from an identity map with depth",
        "none": "The layers' distance from an identity map has no significant trend with depth",
    }[finding.trend]
    test = f"Spearman's ρ {_signed(finding.correlation)}, {formats.p_value(finding.p)}"
    return f"{trend} ({test}); layer {layer} is nearest {size}."


def _omission(omission: Omission) -> str:
    match omission.kind:
        case "no-loss":
            return "Gradients and gates: this model computes no loss on this data."
        case "no-skipping":
            return (
                "The drop of skipped layers and blocks: later layers of this model read the outputs of earlier ones by their number, and "
                "without one they would read others. The drops are those with the branches of a layer set to zero."
            )
        case "unknown-branches":
            return (
                "Attention and feed-forward separately, zeroed branches, gradients and gates: the branches of a "
                f"{omission.model_type!r} layer cannot be read from its code; mixln families says why."
            )


def _not_finite_gradients(finding: GradientsNotFinite) -> str:
    state = "with re-initialised weights" if finding.initial else "as loaded"
    return f"The gradients of the model {state} are not finite in {_numbered(finding.layers)}."


def _layers(drop: Drop) -> str:
    return layers(drop.first, drop.last)


def _signed(correlation: float) -> str:
    return formats.decimals(correlation, 2, sign=True)
