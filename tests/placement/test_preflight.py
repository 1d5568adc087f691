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
OWN_INIT = "is part of the published method"
EACH = (ROUNDS, WARM_UP, DEEP, QK, HYBRID_INIT, TWICE, OWN_INIT)


def found(text: str, layers: int = 12, *, init: str | None = None, warms_up: bool = True) -> list[str]:
    built = placement(text, layers)
    return warnings(built, init=init or built.init, warms_up=warms_up)


@pytest.mark.parametrize(
    ("text", "layers", "init", "warms_up", "expected"),
    [
        ("mix(0.25)", 3, None, True, ROUNDS),
        ("mix", 2, None, True, ROUNDS),
        ("mix(1)", 12, None, True, "means α = 1, Post-LN in all 12 layers; for one Post-LN layer write post*1,pre"),
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
def test_one_warning_fires_alone_and_names_the_placement(text, layers, init, warms_up, expected):
    (warning,) = found(text, layers, init=init, warms_up=warms_up)
    assert expected in warning
    assert warning.startswith(text)


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
    assert found(text, layers, init=init, warms_up=warms_up) == []


def test_several_warnings_come_together():
    text = " ".join(found("qknorm+mix(0.25)", 32, warms_up=False))
    assert [mark for mark in EACH if mark in text] == [WARM_UP, DEEP, QK]


@pytest.mark.parametrize("text", ["qkvnorm+mix(0.25)", "group(4)+mix(0.25)"])
def test_rounding_to_nothing_is_noticed_behind_a_modifier(text):
    assert any(ROUNDS in warning for warning in found(text, 3))


@pytest.mark.parametrize("text", ["mix(0.00)", "mix(0/1)"])
def test_wanted_zero_is_not_warned_about_however_it_is_written(text):
    assert found(text) == []
