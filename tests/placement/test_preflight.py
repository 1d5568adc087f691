"""Each risk is found where it should be, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixln.placement import placement
from mixln.placement.preflight import PlacementRisk, risks
from mixln.placement.zoo import PRE

ROUNDS, WARM_UP, DEEP, QK = "no-post-layer", "no-warmup", "deep-mix", "qk-norm-post"
HYBRID_INIT, TWICE, OWN_INIT = "hybrid-init", "doubly-scaled", "foreign-init"


def found(text: str, layers: int = 12, *, init: str | None = None, warms_up: bool = True) -> tuple[PlacementRisk, ...]:
    built = placement(text, layers)
    return risks(built, init=init or built.init, warms_up=warms_up)


@pytest.mark.parametrize(
    ("text", "layers", "init", "warms_up", "expected"),
    [
        ("mix(0.25)", 3, None, True, ROUNDS),
        ("mix", 2, None, True, ROUNDS),
        ("mix(1)", 12, None, True, "alpha-one"),
        ("mix(0.01)", 24, None, True, ROUNDS),
        ("post", 12, None, False, WARM_UP),
        ("mix(0.25)", 12, None, False, WARM_UP),
        ("pre*11,post", 12, None, False, WARM_UP),
        ("mix(0.25)", 32, None, True, DEEP),
        ("mix(0.5)", 40, None, True, DEEP),
        ("post*8,pre", 32, None, True, DEEP),
        ("qknorm+post", 12, None, True, QK),
        ("qknorm+mix(0.25)", 12, None, True, QK),
        ("hybrid", 12, "normal", True, HYBRID_INIT),
        ("hybrid*", 12, "scaled", True, HYBRID_INIT),
        ("hybrid*2,pre", 12, None, True, HYBRID_INIT),
        ("lns", 12, "scaled", True, TWICE),
        ("lns", 12, "megatron", True, TWICE),
        ("post*1,lns", 12, "scaled", True, TWICE),
        ("lns", 12, "scaled-embed+scaled-small", True, TWICE),
        ("hybrid*", 12, "embedding(0.632)+normal", True, HYBRID_INIT),
        ("hybrid(kv-post)", 12, "normal", True, HYBRID_INIT),
        ("deepnorm", 12, "normal", True, OWN_INIT),
        ("sub-ln", 12, "megatron", True, OWN_INIT),
        ("b2t", 12, None, False, WARM_UP),
    ],
)
def test_one_risk_is_found_alone_and_names_the_placement(text, layers, init, warms_up, expected):
    (risk,) = found(text, layers, init=init, warms_up=warms_up)
    assert (risk.kind, risk.layers) == (expected, layers)
    assert risk.message.startswith(text)


@pytest.mark.parametrize(
    ("text", "layers", "init", "warms_up"),
    [
        ("pre", 12, None, False),
        ("mix(0)", 12, None, False),
        ("mix(0.0)", 3, None, False),
        ("mix(0.25)", 4, None, True),
        ("post", 12, None, True),
        ("mix(0.25)", 24, None, True),
        ("mix(0.0625)", 32, None, True),
        ("post", 32, None, True),
        ("qknorm+pre", 12, None, False),
        ("qkvnorm+post", 12, None, True),
        ("hybrid", 12, "megatron", False),
        ("hybrid*", 32, None, False),
        ("lns", 12, "normal", False),
        ("lns", 12, "small", False),
        ("pre", 12, "scaled", False),
        ("deepnorm", 32, None, False),
        ("deepnorm", 12, "scaled-embed+deepnorm", False),
        ("hybrid*", 12, "embedding(0.632)+megatron", True),
        ("admin", 12, None, False),
        ("keel", 12, None, False),
        ("sandwich", 32, None, False),
        ("peri", 32, None, False),
        ("res-post", 32, None, False),
        ("group(4)", 32, None, False),
    ],
)
def test_nothing_is_said_against_what_is_published(text, layers, init, warms_up):
    assert found(text, layers, init=init, warms_up=warms_up) == ()


PARALLEL = replace(PRE, parallel="separate")


@pytest.mark.parametrize(
    ("text", "stock", "expected"),
    [
        ("pre", PARALLEL, ["sequential"]),
        ("post", PARALLEL, ["sequential"]),
        ("stock*11,pre", PARALLEL, ["sequential"]),
        ("stock", PARALLEL, []),
        ("pre", PRE, []),
        ("pre", None, []),
    ],
)
def test_sequential_layers_of_a_parallel_family_are_another_architecture(text, stock, expected):
    built = placement(text, 12, stock=stock or PRE)
    found = risks(built, init="normal", stock=stock)
    assert [(risk.kind, risk.stock) for risk in found] == [(kind, PARALLEL.formula) for kind in expected]


def test_several_risks_come_together():
    assert [risk.kind for risk in found("qknorm+mix(0.25)", 32, warms_up=False)] == [WARM_UP, DEEP, QK]


@pytest.mark.parametrize("text", ["qkvnorm+mix(0.25)", "group(4)+mix(0.25)"])
def test_rounding_to_nothing_is_noticed_behind_a_modifier(text):
    assert any((risk.kind, risk.term) == (ROUNDS, "mix(0.25)") for risk in found(text, 3))


@pytest.mark.parametrize("text", ["mix(0.00)", "mix(0/1)"])
def test_wanted_zero_is_not_warned_about_however_it_is_written(text):
    assert found(text) == ()


@pytest.mark.parametrize(
    ("text", "layers", "init", "message"),
    [
        (
            "mix(1)",
            12,
            "normal",
            "mix(1) means α = 1, Post-LN in all 12 layers; for one Post-LN layer write post*1,pre",
        ),
        ("mix(0.25)", 3, "normal", "mix(0.25) rounds to no Post-LN layer in a model of 3 layers: it is Pre-LN"),
        (
            "hybrid",
            12,
            "normal",
            "hybrid with init 'normal': HybridNorm is published with 'megatron' and is worse without it (arXiv:2503.04598)",
        ),
        ("deepnorm", 12, "normal", "deepnorm with init 'normal': init 'deepnorm' is part of the published method"),
    ],
)
def test_the_message_of_a_python_warning(text, layers, init, message):
    (risk,) = found(text, layers, init=init)
    assert risk.message == message


def test_the_message_about_another_architecture():
    (risk,) = risks(placement("pre", 3), init="normal", stock=PARALLEL)
    assert risk.message == (
        "pre runs attention and feed-forward one after the other, but this family side by side, "
        "x ← x + A(N(x)) + F(N(x)): this is another architecture, not another position of norms; "
        "compare it with placements of the same kind"
    )
