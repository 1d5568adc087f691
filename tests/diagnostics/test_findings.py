"""The findings of a diagnosis say what its numbers support, and no more."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from mixln.diagnostics.findings import (
    CheapestRemoval,
    DefinitionsDiffer,
    DepthTrend,
    GateAgreement,
    GradientsNotFinite,
    HarmfulLayers,
    IdentityTrend,
    LeastChange,
    MostNeeded,
    NoInterval,
    NotFinite,
    StreamTurning,
    findings,
    gradients_not_finite,
    rank_correlation,
)
from mixln.diagnostics.results import Drops, Gradients
from mixln.findings import Finding
from mixln.records import to_json
from mixln.runs.profile import Profile
from tests.compare.records import all_of, one
from tests.diagnostics.by_hand import (
    FALLING,
    UNORDERED,
    accuracies,
    diagnosis,
    drop,
    drops,
    gradients,
    jacobian,
)


def found(measured: Drops | None, **more) -> tuple[Finding, ...]:
    return findings(diagnosis(measured, **more))


def test_the_longest_block_that_costs_little_can_be_removed():
    blocks = [drop(4, 0.012, last=5), drop(3, 0.02, last=5), drop(2, 0.5, last=5)]
    removal = one(found(drops((2, 0.5, 0.4, 0.005, 0.006, 0.1), blocks=blocks)), CheapestRemoval)
    assert (removal.removable, removal.drop.first, removal.drop.last) == (True, 3, 5)
    assert (removal.original, removal.unit) == (3.0, "nats per token")
    assert removal.low < 0.019 < 0.021 < removal.high, "wider than the interval of one block"


def test_a_small_cost_that_is_not_resolved_is_no_small_cost():
    """The change is 0.3% of the loss, and its interval reaches beyond 1%."""
    removal = one(found(drops((2, 0.5, 0.4, 0.01, 0.3, 0.4), half=0.03)), CheapestRemoval)
    assert (removal.removable, removal.drop.first, removal.drop.change) == (False, 4, 0.01)


def test_without_an_interval_nothing_can_be_said_to_be_removable():
    every = found(drops((2, 0.5, 0.4, 0.001, 0.3, 0.4), half=None))
    assert all_of(every, NoInterval)
    assert all_of(every, CheapestRemoval) == all_of(every, MostNeeded) == []


def test_a_layer_that_harms_is_named():
    assert one(found(drops((2, 0.5, -0.1, 0.4, 0.3, 0.4))), HarmfulLayers).layers == (3,)
    assert all_of(found(drops((2, 0.5, -0.1, 0.4, 0.3, 0.4), half=0.2)), HarmfulLayers) == []


@pytest.mark.parametrize(
    ("changes", "trend", "correlation"),
    [(FALLING, "falling", -1), (FALLING[::-1], "rising", 1), (UNORDERED, "none", None)],
)
def test_a_trend_with_depth_needs_significance(changes, trend, correlation):
    depth = one(found(drops(changes)), DepthTrend)
    assert depth.trend == trend
    assert correlation is None or depth.correlation == pytest.approx(correlation)
    assert (depth.p < 0.05) == (trend != "none")


def test_three_layers_have_no_trend():
    assert all_of(found(drops((1, 2, 3))), DepthTrend) == []


def test_the_medians_of_both_halves():
    depth = one(found(drops(FALLING)), DepthTrend)
    assert (depth.first_half, depth.second_half) == (0.5, 0.2)


def test_higher_is_better_turns_the_sign():
    every = found(accuracies())
    assert one(every, DepthTrend).trend == "falling"
    needed = one(every, MostNeeded)
    assert (needed.judgement, needed.drop.first, needed.measure, needed.original) == (
        "most-needed",
        1,
        "accuracy",
        0.8,
    )
    assert needed.others == -0.2
    assert one(every, LeastChange) == LeastChange(layer=6, change=0.0, measure="accuracy")
    assert all_of(every, CheapestRemoval) == []


def test_an_embedding_change_names_the_least_and_claims_no_more():
    measured = drops((0.3, 0.1, 0.2, 0.4, 0.5, 0.6), measure="embedding change", unit="1 − cosine", original=0.0)
    every = found(measured)
    assert one(every, LeastChange) == LeastChange(layer=2, change=0.1, measure="embedding change")
    assert all_of(every, CheapestRemoval) == []


@pytest.mark.parametrize(("estimates", "usable", "correlation"), [(FALLING, True, 1), (FALLING[::-1], False, -1)])
def test_gates_are_judged_by_their_rank_correlation_with_the_exact_drop(estimates, usable, correlation):
    agreement = one(found(drops(FALLING), gradients=gradients(estimates)), GateAgreement)
    assert (agreement.usable, agreement.correlation) == (usable, pytest.approx(correlation))
    assert (agreement.samples, agreement.unit) == (10, "nats per token")


def test_two_definitions_that_differ_are_pointed_out():
    measured = drops(FALLING)
    assert all_of(found(replace(measured, zeroed=measured.skipped)), DefinitionsDiffer) == []
    zeroed = tuple(replace(each, change=each.change * 1.5) for each in measured.skipped)
    assert one(found(replace(measured, zeroed=zeroed)), DefinitionsDiffer).layers == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("typical", "trend"), [(FALLING, "falling"), (FALLING[::-1], "rising"), (UNORDERED, "none"), ((0.2, 0.1), "none")]
)
def test_the_approach_to_an_identity_map_needs_significance(typical, trend):
    identity = one(found(None, jacobian=jacobian(typical)), IdentityTrend)
    assert (identity.trend, identity.tokens) == (trend, 8)
    assert (identity.correlation is None) == (len(typical) < 4)
    assert identity.nearest == (typical.index(min(typical)) + 1, min(typical))


def test_one_layer_and_no_drop():
    assert found(None) == (StreamTurning(most=(6, pytest.approx(0.15)), least=(1, 0.1)),)
    assert all_of(found(drops((1.0,))), MostNeeded) == []


def test_rank_correlation():
    """Of the 24 orders of four, 8 have |ρ| of at least 0.8, and two have 1."""
    assert rank_correlation((1, 2, 3, 4), (10, 20, 30, 25)) == (pytest.approx(0.8), pytest.approx(8 / 24))
    assert rank_correlation((1, 2, 3, 4), (4, 3, 2, 1)) == (pytest.approx(-1), pytest.approx(2 / 24))
    assert rank_correlation((1, 2, math.nan, 3, 4), (4, 3, 9, 2, 1)) == (pytest.approx(-1), pytest.approx(2 / 24))
    assert rank_correlation(range(12), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])[0] == pytest.approx(0.5, abs=0.1)
    assert rank_correlation((1, 2, 3), (1, 2, 3)) is None
    assert rank_correlation((1, 2, 3, 4), (1, 1, 1, 1)) is None


def test_what_is_picked_out_of_many_needs_more_than_one_interval_says():
    """Four of 30 layers have a change whose own interval ends just below 1% of the loss, or below zero."""
    changes = [0.5] * 26 + [0.028, 0.028, -0.0012, -0.0012]
    assert not one(found(drops(changes[:28], half=0.0019)), CheapestRemoval).removable
    assert all_of(found(drops(changes, half=0.001)), HarmfulLayers) == []
    assert one(found(drops(changes[:1] + changes[-1:], half=0.001)), HarmfulLayers).layers == (2,)


def test_a_drop_that_is_not_finite_is_said_and_left_out_of_the_rest():
    every = found(drops((0.4, 0.3, math.nan, 0.1, 0.5, 0.2)))
    assert every[0] == NotFinite(layers=(3,), measure="loss")
    assert one(every, DepthTrend).trend == "none"
    json.dumps(to_json(every), allow_nan=False)
    assert found(drops((math.inf,) * 6))[0] == NotFinite(layers=(1, 2, 3, 4, 5, 6), measure="loss")


@pytest.mark.parametrize(
    ("changes", "half", "judgement"),
    [
        (FALLING, 0.001, "most-needed"),
        ((2.0, 1.999, 0.4, 0.3), 0.001, "not-separated"),
        ((1e-5, 2e-5, 1e-5, 0), 0.01, "none-needed"),
    ],
)
def test_the_layer_that_matters_most_is_named_only_when_separated(changes, half, judgement):
    needed = one(found(drops(changes, half=half)), MostNeeded)
    assert needed.judgement == judgement
    assert needed.drop.first == changes.index(max(changes)) + 1


def test_gradients_that_are_not_finite_are_found():
    norm = Profile(attention=(1.0, math.nan, 1.0), feed_forward=(1.0, 1.0, math.inf))
    broken = Gradients(norm=norm, gate=Profile(attention=(), feed_forward=()), loss=3.0, tokens=10)
    whole = replace(broken, norm=Profile(attention=(1.0,), feed_forward=(2.0,)))
    assert gradients_not_finite(diagnosis(None)) == ()
    assert gradients_not_finite(diagnosis(None, gradients=whole, initial=broken)) == (
        GradientsNotFinite(layers=(2, 3), initial=True),
    )
