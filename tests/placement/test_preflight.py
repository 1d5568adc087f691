"""Each warning before training fires where it should, and only there."""

from __future__ import annotations

import pytest

from mixln.placement import placement
from mixln.placement.preflight import warnings

ROUNDS = "rounds to no Post-LN layer"
WARM_UP = "no warm-up"
DEEP = "0.0625 at 32 layers"
QK = "QK-norm in Post-LN layers"
HYBRID_INIT = "HybridNorm is published with 'megatron'"
TWICE = "scales its norms by depth"
OWN_INIT = "is a part of the method"
EACH = (ROUNDS, WARM_UP, DEEP, QK, HYBRID_INIT, TWICE, OWN_INIT)


def found(text: str, layers: int = 12, *, init: str | None = None, warmup_steps: int = 100) -> list[str]:
    built = placement(text, layers)
    return warnings(built, init=init or built.init, warmup_steps=warmup_steps)


@pytest.mark.parametrize(
    ("text", "layers", "init", "warmup_steps", "expected"),
    [
        ("mix(0.25)", 3, None, 100, ROUNDS),
        ("mix", 2, None, 100, ROUNDS),
        ("mix(1)", 12, None, 100, "is α = 1, Post-LN in all 12 layers; for one layer write post*1,pre"),
        ("mix(0.01)", 24, None, 100, ROUNDS),
        ("post", 12, None, 0, WARM_UP),
        ("mix(0.25)", 12, None, 0, WARM_UP),
        ("pre*11,post", 12, None, 0, WARM_UP),
        ("mix(0.25)", 32, None, 100, DEEP),
        ("mix(0.5)", 40, None, 100, DEEP),
        ("post*8,pre", 32, None, 100, DEEP),
        ("qknorm+post", 12, None, 100, QK),
        ("qknorm+mix(0.25)", 12, None, 100, QK),
        ("hybrid", 12, "normal", 100, HYBRID_INIT),
        ("hybrid*", 12, "scaled", 100, HYBRID_INIT),
        ("hybrid*2,pre", 12, None, 100, HYBRID_INIT),
        ("lns", 12, "scaled", 100, TWICE),
        ("lns", 12, "megatron", 100, TWICE),
        ("post*1,lns", 12, "scaled", 100, TWICE),
        ("lns", 12, "scaled-embed+scaled-small", 100, TWICE),
        ("hybrid*", 12, "embedding(0.632)+normal", 100, HYBRID_INIT),
        ("hybrid(kv-post)", 12, "normal", 100, HYBRID_INIT),
        ("deepnorm", 12, "normal", 100, OWN_INIT),
        ("sub-ln", 12, "megatron", 100, OWN_INIT),
        ("b2t", 12, None, 0, WARM_UP),
    ],
)
def test_one_warning_fires_alone_and_names_the_placement(text, layers, init, warmup_steps, expected):
    (warning,) = found(text, layers, init=init, warmup_steps=warmup_steps)
    assert expected in warning
    assert warning.startswith(text)


@pytest.mark.parametrize(
    ("text", "layers", "init", "warmup_steps"),
    [
        ("pre", 12, None, 0),
        ("mix(0)", 12, None, 0),
        ("mix(0.0)", 3, None, 0),
        ("mix(0.25)", 4, None, 1),
        ("post", 12, None, 1),
        ("mix(0.25)", 24, None, 100),
        ("mix(0.0625)", 32, None, 100),
        ("post", 32, None, 100),
        ("qknorm+pre", 12, None, 0),
        ("qkvnorm+post", 12, None, 100),
        ("hybrid", 12, "megatron", 0),
        ("hybrid*", 32, None, 0),
        ("lns", 12, "normal", 0),
        ("lns", 12, "small", 0),
        ("pre", 12, "scaled", 0),
        ("deepnorm", 32, None, 0),
        ("deepnorm", 12, "scaled-embed+deepnorm", 0),
        ("hybrid*", 12, "embedding(0.632)+megatron", 100),
        ("admin", 12, None, 0),
        ("keel", 12, None, 0),
        ("sandwich", 32, None, 0),
        ("peri", 32, None, 0),
        ("res-post", 32, None, 0),
        ("group(4)", 32, None, 0),
    ],
)
def test_nothing_is_said_against_what_is_published(text, layers, init, warmup_steps):
    assert found(text, layers, init=init, warmup_steps=warmup_steps) == []


def test_several_warnings_come_together():
    text = " ".join(found("qknorm+mix(0.25)", 32, warmup_steps=0))
    assert [mark for mark in EACH if mark in text] == [WARM_UP, DEEP, QK]


@pytest.mark.parametrize("text", ["qkvnorm+mix(0.25)", "group(4)+mix(0.25)"])
def test_rounding_to_nothing_is_noticed_behind_a_modifier(text):
    assert any(ROUNDS in warning for warning in found(text, 3))


@pytest.mark.parametrize("text", ["mix(0.00)", "mix(0/1)"])
def test_wanted_zero_is_not_warned_about_however_it_is_written(text):
    assert found(text) == []
