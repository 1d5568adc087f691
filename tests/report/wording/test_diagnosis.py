"""The sentences on a diagnosis."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mixln.diagnostics.findings import (
    CheapestRemoval,
    DefinitionsDiffer,
    DepthTrend,
    GateAgreement,
    HarmfulLayers,
    IdentityTrend,
    LeastChange,
    MostNeeded,
    NoInterval,
    NotFinite,
    StreamTurning,
    findings,
)
from mixln.diagnostics.results import Drops, Gradients, Omission
from mixln.findings import Finding
from mixln.report.wording.diagnosis import not_measured, sentence, verdict
from mixln.runs.profile import Profile
from tests.compare.records import one
from tests.diagnostics.by_hand import (
    FALLING,
    NOTHING,
    UNORDERED,
    accuracies,
    diagnosis,
    drop,
    drops,
    gradients,
    jacobian,
)

EMBEDDING = drops((0.3, 0.1, 0.2, 0.4, 0.5, 0.6), measure="embedding change", unit="1 − cosine", original=0.0)
SIMULTANEOUS = "; the 95% interval is simultaneous over all layers and blocks tried."


def said(kind: type[Finding], measured: Drops | None, **more) -> str:
    """The sentence of the only finding of a kind."""
    return sentence(one(findings(diagnosis(measured, **more)), kind))


def test_sentences_stand_in_the_order_of_the_findings() -> None:
    made = diagnosis(drops(FALLING), gradients=gradients(FALLING), jacobian=jacobian(FALLING))
    assert verdict(made) == tuple(map(sentence, findings(made)))


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (
            drops((2, 0.5, 0.4, 0.005, 0.006, 0.1), blocks=[drop(3, 0.02, last=5)]),
            "Layers 3 to 5 can be removed: the loss changes by +0.67% [+0.62, +0.71], from 3.000 to 3.020 nats per token "
            "(perplexity "
            "+2.0%)",
        ),
        (
            drops((2, 0.5, 0.4, 0.01, 0.3, 0.4), half=0.03),
            "No layer can be removed with a loss increase significantly below 1%. The cheapest is layer 4: the loss changes by "
            "+0.33% "
            "[−1.0, +1.7], from 3.000 to 3.010 nats per token (perplexity +1.0%)",
        ),
        (
            drops((2, 0.5, -0.1, 0.4, 0.3, 0.4)),
            "Layer 3 can be removed: the loss changes by −3.3% [−3.4, −3.3], from 3.000 to 2.900 nats per token (perplexity −9.5%)",
        ),
        (
            drops(FALLING, unit="nats per image"),
            "No layer can be removed with a loss increase significantly below 1%. The cheapest is layer 6: the loss changes by "
            "+3.3% "
            "[+3.3, +3.4], from 3.000 to 3.100 nats per image",
        ),
    ],
)
def test_what_can_be_removed(measured: Drops, text: str) -> None:
    assert said(CheapestRemoval, measured) == text + SIMULTANEOUS


def test_a_perplexity_beyond_all_bounds() -> None:
    assert "(perplexity +∞%)" in said(CheapestRemoval, drops((900.0,) * 6))


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (
            drops(FALLING),
            "Layer 1 matters most: without it the loss is 5.00 nats per token instead of 3.00; the median drop of the other "
            "layers is "
            "+0.300.",
        ),
        (
            accuracies(),
            "Layer 1 matters most: without it the accuracy is 2.50 instead of 0.800; the median drop of the other layers is "
            "−0.200.",
        ),
        (
            drops((2.0, 1.999, 0.4, 0.3)),
            "Layer 1 has the largest drop, +2.00, not significantly larger than that of layer 2.",
        ),
        (
            drops((0.001, 0.002, 0.001, 0), half=0.01),
            "No single layer's drop differs significantly from zero: layer 2 has the largest, +0.00200.",
        ),
    ],
)
def test_what_is_needed_most(measured: Drops, text: str) -> None:
    assert said(MostNeeded, measured) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            FALLING,
            "Deeper layers matter less (Spearman's ρ of drop and depth −1.00, p = 0.003; median drop 0.500 in the first half of "
            "the "
            "layers, 0.200 in the second).",
        ),
        (
            FALLING[::-1],
            "Deeper layers matter more (Spearman's ρ of drop and depth +1.00, p = 0.003; median drop 0.200 in the first half of "
            "the "
            "layers, 0.500 in the second).",
        ),
        (
            UNORDERED,
            "The drop has no significant trend with depth (Spearman's ρ −0.31, p = 0.564; median drop 0.400 in the first half of "
            "the "
            "layers, 0.300 in the second).",
        ),
    ],
)
def test_the_trend_with_depth(changes: tuple[float, ...], text: str) -> None:
    assert said(DepthTrend, drops(changes)) == text


def test_what_lacks_an_interval_or_is_not_finite() -> None:
    assert said(NoInterval, drops(FALLING, half=None)) == (
        "A single sequence gives no confidence interval to tell which layers can be removed: increase --tokens."
    )
    assert said(NotFinite, drops((0.4, 0.3, math.nan, 0.1))) == "Without layer 3 the loss is not finite."
    assert said(NotFinite, drops((math.inf, math.nan))) == "Without any one of layers 1, 2 the loss is not finite."


def test_layers_that_harm() -> None:
    text = said(HarmfulLayers, drops((2, 0.5, -0.1, 0.4, 0.3, 0.4)))
    assert text == "Without layer 3 the loss is significantly lower than with it."


def test_a_measure_that_is_no_loss() -> None:
    text = "By embedding change, layer 2 matters least (0.100); its effect on other measures is not known."
    assert said(LeastChange, EMBEDDING) == text


def test_the_angles() -> None:
    text = "The residual stream changes direction most in layer 6 (angular distance 0.15 π) and least in layer 1 (0.100 π)."
    assert said(StreamTurning, None) == text


@pytest.mark.parametrize(
    ("estimates", "unit", "text"),
    [
        (
            FALLING,
            "token",
            "10 tokens, is a usable proxy for the exact drop here (Spearman's ρ between the two +1.00).",
        ),
        (
            FALLING[::-1],
            "image",
            "10 images, is not a usable proxy for the exact drop here (Spearman's ρ between the two −1.00).",
        ),
    ],
)
def test_the_first_order_estimate(estimates: tuple[float, ...], unit: str, text: str) -> None:
    found = said(GateAgreement, drops(FALLING, unit=f"nats per {unit}"), gradients=gradients(estimates))
    assert found == f"The first-order estimate of the loss increase, from one backward pass over {text}"


def test_two_definitions_that_differ() -> None:
    measured = drops(FALLING[:2])
    zeroed = tuple(replace(each, change=each.change * 1.5) for each in measured.skipped)
    both = "In layers 1, 2 the drop depends on whether the norms on the stream are removed with the layer: compare both columns."
    assert said(DefinitionsDiffer, replace(measured, zeroed=zeroed)) == both
    assert said(DefinitionsDiffer, replace(measured, zeroed=zeroed[:1])).startswith("In layer 1 the drop")


@pytest.mark.parametrize(
    ("typical", "text"),
    [
        (
            FALLING,
            "The layers approach an identity map with depth (Spearman's ρ −1.00, p = 0.003); layer 6 is nearest (‖J − I‖ in a "
            "random direction 0.10, over 8 tokens).",
        ),
        (
            FALLING[::-1],
            "The layers move away from an identity map with depth (Spearman's ρ +1.00, p = 0.003); layer 1 is nearest (‖J − I‖ in "
            "a random direction 0.10, over 8 tokens).",
        ),
        (
            UNORDERED,
            "The layers' distance from an identity map has no significant trend with depth (Spearman's ρ −0.31, p = 0.564); layer "
            "3 is nearest (‖J − I‖ in a random direction 0.10, over 8 tokens).",
        ),
        (
            (0.2, 0.1),
            "Layer 2 is nearest to an identity map (‖J − I‖ in a random direction 0.10, over 8 tokens).",
        ),
    ],
)
def test_the_approach_to_an_identity_map(typical: tuple[float, ...], text: str) -> None:
    assert said(IdentityTrend, None, jacobian=jacobian(typical)) == text


def test_what_was_not_measured() -> None:
    norm = Profile(attention=(1.0, math.nan), feed_forward=(1.0, 1.0))
    broken = Gradients(norm=norm, gate=NOTHING, loss=3.0, tokens=10)
    omitted = (
        Omission(kind="no-loss", model_type="llama"),
        Omission(kind="unknown-branches", model_type="unheard-of"),
        Omission(kind="no-skipping", model_type="llama"),
    )
    made = diagnosis(None, gradients=broken, initial=broken, omitted=omitted)
    assert not_measured(made) == (
        "Gradients and gates: this model computes no loss on this data.",
        "Attention and feed-forward separately, zeroed branches, gradients and gates: the branches of a 'unheard-of' layer cannot "
        "be read from its code; mixln families says why.",
        "The drop of skipped layers and blocks: later layers of this model read the outputs of earlier ones by their number, and "
        "without one they would read others. The drops are those with the branches of a layer set to zero.",
        "The gradients of the model as loaded are not finite in layer 2.",
        "The gradients of the model with re-initialised weights are not finite in layer 2.",
    )
