"""The verdict says what the figures carry, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mixln.diagnostics.results import Angular, Diagnosis, Drop, Drops, Gradients, Jacobian, Stream
from mixln.diagnostics.verdict import rank_correlation, verdict
from mixln.runs.profile import Profile

NOTHING = Profile(attention=(), feed_forward=())


def drop(first: int, change: float, half: float | None = 0.001, *, last: int | None = None) -> Drop:
    low, high = (None, None) if half is None else (change - half, change + half)
    return Drop(first=first, last=last or first, value=3 + change, change=change, low=low, high=high)


def drops(changes, *, blocks=(), half: float | None = 0.001, **more) -> Drops:
    return Drops(
        **{
            "measure": "loss",
            "unit": "nats per token",
            "better": "lower",
            "original": 3.0,
            "tokens": 1000,
            "sequences": 60,
            **more,
        },
        skipped=tuple(drop(layer, change, half) for layer, change in enumerate(changes, start=1)),
        blocks=tuple(blocks),
    )


def diagnosis(found: Drops | None, **more) -> Diagnosis:
    depth = len(found.skipped) if found else 6
    distance = tuple(tuple(0.1 + 0.01 * layer for _ in range(depth - layer)) for layer in range(depth))
    return Diagnosis(
        model="m",
        layers=depth,
        facts={},
        angular=Angular(distance=distance, influence=(0.1,) * depth, tokens=10, convention="all"),
        stream=Stream(entry_variance=1, entry_norm=1, variance=NOTHING, norm=NOTHING, share=NOTHING, gains={}),
        drops=found,
        **more,
    )


FALLING = (2.0, 0.5, 0.4, 0.3, 0.2, 0.1)


def said(found: Drops | None, **more) -> str:
    return " ".join(verdict(diagnosis(found, **more)))


def test_the_longest_block_that_costs_little_can_go():
    blocks = [drop(4, 0.012, last=5), drop(3, 0.02, last=5), drop(2, 0.5, last=5)]
    text = said(drops((2, 0.5, 0.4, 0.005, 0.006, 0.1), blocks=blocks))
    assert (
        "Layers 3 to 5 can go for +0.67% [+0.62, +0.71] loss. Without layers 3 to 5 the loss is 3.020 nats per token instead of 3.000"
        in text
    )


def test_a_small_cost_that_is_not_resolved_is_no_small_cost():
    """The change is 0.3% of the loss, and its interval reaches beyond 1%."""
    text = said(drops((2, 0.5, 0.4, 0.01, 0.3, 0.4), half=0.03))
    assert "can go" not in text
    assert "No layer can surely go for less than 1% of the loss: the cheapest, layer 4, takes +0.33%" in text


def test_without_an_interval_nothing_is_said_about_what_can_go():
    text = said(drops((2, 0.5, 0.4, 0.001, 0.3, 0.4), half=None))
    assert "can go" not in text.replace("which layers can go", "")
    assert "One sequence gives no interval" in text


def test_a_layer_that_harms_is_named():
    assert "Without layer 3 the loss is lower than with it." in said(drops((2, 0.5, -0.1, 0.4, 0.3, 0.4)))
    assert "lower than with it" not in said(drops((2, 0.5, -0.1, 0.4, 0.3, 0.4), half=0.2))


def test_a_trend_with_depth_is_claimed_only_when_resolved():
    assert "Deeper layers matter less (Spearman's ρ of drop and depth -1.00" in said(drops(FALLING))
    assert "Deeper layers matter more (Spearman's ρ of drop and depth +1.00" in said(drops(FALLING[::-1]))
    assert "no clear trend with depth" in said(drops((0.4, 2.0, 0.1, 0.3, 0.5, 0.2)))
    assert "trend" not in said(drops((1, 2, 3)))


def test_higher_is_better_turns_the_sign():
    text = said(
        drops((-0.5, -0.4, -0.3, -0.2, -0.1, 0.0), measure="accuracy", unit="share", better="higher", original=0.8)
    )
    assert "Deeper layers matter less" in text
    assert "Layer 1 matters most: without it the accuracy is 2.5 instead of 0.8" in text
    assert "By accuracy, layer 6 matters least" in text
    assert "can go" not in text


def test_an_embedding_change_names_the_least_and_claims_no_more():
    text = said(drops((0.3, 0.1, 0.2, 0.4, 0.5, 0.6), measure="embedding change", unit="1 − cosine", original=0.0))
    assert (
        "By embedding change, layer 2 matters least (0.1). How much of that a task would feel, this measure does not say."
        in text
    )


def test_gates_are_judged_by_their_rank_correlation_with_the_exact_drop():
    def gradients(estimates):
        half = tuple(-value / 2 for value in estimates)
        return Gradients(norm=NOTHING, gate=Profile(attention=half, feed_forward=half), loss=3.0, tokens=10)

    assert "a usable ranking here (Spearman's ρ with the exact drop +1.00)" in said(
        drops(FALLING), gradients=gradients(FALLING)
    )
    assert "no substitute for the exact drop here (Spearman's ρ with the exact drop -1.00)" in said(
        drops(FALLING), gradients=gradients(FALLING[::-1])
    )


def test_two_definitions_that_differ_are_pointed_out():
    found = drops(FALLING)
    assert "norms on the stream" not in said(replace(found, zeroed=found.skipped))
    zeroed = tuple(replace(each, change=each.change * 1.5) for each in found.skipped)
    assert "In layers 1, 2, 3, 4, 5, 6 the drop depends on whether the norms on the stream" in said(
        replace(found, zeroed=zeroed)
    )


def test_the_approach_to_an_identity_map_is_claimed_only_when_resolved():
    def jacobian(typical):
        return Jacobian(largest=typical, distance=typical, typical=typical, tokens=8)

    assert "The layers come nearer to an identity map with depth" in said(None, jacobian=jacobian(FALLING))
    assert "The layers move away from an identity map with depth" in said(None, jacobian=jacobian(FALLING[::-1]))
    assert "do not come nearer to an identity map with depth" in said(
        None, jacobian=jacobian((0.4, 2.0, 0.1, 0.3, 0.5, 0.2))
    )


def test_one_layer_and_no_drop():
    assert verdict(diagnosis(None))[0].startswith("The residual stream turns most in layer 6")
    assert verdict(diagnosis(drops((1.0,))))


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
    assert "can surely go for less" in said(drops(changes[:28], half=0.0019))
    assert "lower than with it" not in said(drops(changes, half=0.001))
    assert "lower than with it" in said(drops(changes[:1] + changes[-1:], half=0.001))


def test_a_drop_that_is_not_finite_is_said_and_left_out_of_the_rest():
    text = said(drops((0.4, 0.3, math.nan, 0.1, 0.5, 0.2)))
    assert text.startswith("Without layer 3 the loss is not finite.")
    assert "nan" not in text
    assert "no clear trend with depth" in text
    assert said(drops((math.inf,) * 6)).startswith(
        "Without any one of the layers 1, 2, 3, 4, 5, 6 the loss is not finite."
    )
    assert "perplexity" in said(drops((900.0,) * 6))


def test_the_layer_that_matters_most_is_named_only_when_told_apart():
    assert "Layer 1 matters most" in said(drops(FALLING))
    assert "Layer 1 has the largest drop, +2, not told apart from that of layer 2." in said(
        drops((2.0, 1.999, 0.4, 0.3))
    )
    assert "Here no single layer's drop is told apart from none" in said(drops((1e-5, 2e-5, 1e-5, 0), half=0.01))
