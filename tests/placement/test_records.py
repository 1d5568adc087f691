"""The records: what they refuse, and that a stored placement is read back as it was."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from mixln.errors import MixlnError, PlacementError, SettingsError
from mixln.placement import (
    Anchor,
    Balance,
    Gain,
    Layer,
    Norm,
    Placement,
    ProjectionNorm,
    Projections,
    Sublayer,
    placement,
)
from tests.tiny import EVERY

TWELVE_LAYERS = (
    *(name for name in EVERY if name != "post*1,pre*2"),
    "post*3,pre*9",
    "hybrid**2,pre",
    "peri*4,lns",
    "qkvnorm+group(2)+res-post",
)


@pytest.mark.parametrize("name", TWELVE_LAYERS)
def test_json_round_trip_gives_the_same_record(name):
    built = placement(name, 12)
    assert Placement.from_json(json.loads(json.dumps(built.to_json()))) == built


def test_json_round_trip_of_a_record_that_has_everything():
    norm = ProjectionNorm(norm=Norm(kind="group", groups=2), width="full")
    sublayer = Sublayer(
        branch_in=Norm(), branch_out=Norm(kind="group", groups=4), stream_out=Norm(), branch_scale=0.5, skip_scale=2.5
    )
    projections = Projections(query=norm, key=ProjectionNorm(), value=norm, context=ProjectionNorm())
    layer = Layer(attention=sublayer, feed_forward=replace(sublayer, stream_out=None), projections=projections)
    built = Placement(name="mine", layers=(layer, Layer()), embedding_norm=Norm(), init="megatron")
    assert Placement.from_json(json.loads(json.dumps(built.to_json()))) == built


def test_json_has_one_entry_a_layer_and_leaves_out_what_is_absent():
    stored = placement("mix(0.5)", 2).to_json()
    assert stored == {
        "name": "mix(0.5)",
        "init": "normal",
        "layers": [
            {"attention": {"stream_out": {}}, "feed_forward": {"stream_out": {}}},
            {"attention": {"branch_in": {}}, "feed_forward": {"branch_in": {}}},
        ],
    }


def test_json_keeps_the_recommended_init_even_where_it_is_the_default():
    assert placement("pre", 2).to_json()["init"] == "normal"
    assert placement("hybrid", 2).to_json()["init"] == "megatron"


@pytest.mark.parametrize(
    ("path", "entry", "at"),
    [
        ((), "alpha", "placement"),
        (("layers", 0), "mlp", r"placement\.layers\[0\]"),
        (("layers", 1, "attention"), "pre_norm", r"placement\.layers\[1\]\.attention"),
        (("layers", 2, "feed_forward", "branch_in"), "eps", r"placement\.layers\[2\]\.feed_forward\.branch_in"),
        (("embedding_norm",), "size", r"placement\.embedding_norm"),
    ],
)
def test_unknown_entry_is_refused_with_its_path(path, entry, at):
    stored = json.loads(json.dumps(placement("peri", 3).to_json()))
    target = stored
    for step in path:
        target = target[step]
    target[entry] = 1
    with pytest.raises(PlacementError, match=rf"^{at}\.{entry} is unknown to this version of mixln; known: "):
        Placement.from_json(stored)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, r"^placement\.name is missing$"),
        ({"name": "pre"}, r"^placement\.layers is missing$"),
        ({"layers": [{}]}, r"^placement\.name is missing$"),
        (None, r"^placement must be an object, got null$"),
        ([], r"^placement must be an object, got \[\]$"),
        ("pre", r'^placement must be an object, got "pre"$'),
        ({"name": "x", "layers": []}, r"^placement cannot be used: placement 'x' needs at least one layer"),
        ({"name": "x", "layers": 3}, r"^placement\.layers must be a list, got 3$"),
        ({"name": "x", "layers": [3]}, r"^placement\.layers\[0\] must be an object, got 3$"),
        (
            {"name": "x", "layers": [{"attention": None}]},
            r"^placement\.layers\[0\]\.attention must be an object, got null$",
        ),
        (
            {"name": "x", "layers": [{"attention": {"branch_in": {"kind": "layer"}}}]},
            r'^placement\.layers\[0\]\.attention\.branch_in\.kind must be one of host, group, dyt, derf, bhyt, unit, got "layer"$',
        ),
        (
            {"name": "x", "layers": [{"attention": {"branch_in": {"groups": 2}}}]},
            r"^placement\.layers\[0\]\.attention\.branch_in cannot be used: groups is required for norm kind 'group' and for no other",
        ),
        (
            {"name": "x", "layers": [{"projections": {"query": {"width": "all"}}}]},
            r'^placement\.layers\[0\]\.projections\.query\.width must be one of head, full, got "all"$',
        ),
    ],
)
def test_malformed_stored_placement_is_refused_by_path(stored, message):
    with pytest.raises(PlacementError, match=message):
        Placement.from_json(stored)


@pytest.mark.parametrize(
    "stored",
    [
        {"name": "x", "layers": {}},
        {"name": "x", "layers": [{"attention": []}]},
        {"name": "x", "layers": [{"attention": [{}, {}]}]},
        {"name": "x", "layers": [{"attention": {"branch_scale": "a half"}}]},
    ],
    ids=["layers is an object", "sublayer is empty list", "sublayer is list", "scale is text"],
)
def test_stored_placement_of_the_wrong_json_type_is_refused(stored):
    with pytest.raises(PlacementError):
        Placement.from_json(stored)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Norm(kind="batch"), r"kind must be one of host, group, dyt, derf, bhyt, unit, got 'batch'"),
        (lambda: Norm(kind="group"), r"groups.*kind='group', groups=None"),
        (lambda: Norm(groups=4), r"groups.*kind='host', groups=4"),
        (lambda: Norm(kind="group", groups=10**400), r"groups must be at most 1,000,000, got far more"),
        (lambda: Norm(kind="dyt", alpha=1e30), r"alpha must lie in \[-10,000, 10,000\], got 1e\+30"),
        (lambda: Gain(initial=float("inf")), r"initial must lie in \[-10,000, 10,000\], got inf"),
        (lambda: Sublayer(skip_scale=1e30), r"skip_scale must lie in \[-10,000, 10,000\], got 1e\+30"),
        (lambda: Sublayer(branch_scale=10**400), r"branch_scale must lie .*, got a number of more than 300 digits"),
        (lambda: Sublayer(branch_scale=float("nan")), r"branch_scale must lie in \[-10,000, 10,000\], got nan"),
        (
            lambda: Norm(kind="derf"),
            r"required for norm kind 'dyt' or 'derf' or 'bhyt' and for no other, got kind='derf', alpha=None",
        ),
        (
            lambda: Placement(name="x", layers=(Layer(),), streams="anchored"),
            r"'x': every layer needs an anchor if streams is 'anchored'",
        ),
        (lambda: Anchor(keep=1.0, add=float("nan")), r"add must lie in \[-10,000, 10,000\], got nan"),
        (lambda: Sublayer(ramp=0), r"ramp must be a number of steps from 1 to 1,000,000,000,000, got 0"),
        (lambda: Projections(gate="half"), r"gate of the attention must be 'head', 'full' or absent, got 'half'"),
        (lambda: Norm(gain=float("inf")), r"gain must lie in \[-10,000, 10,000\], got inf"),
        (lambda: Sublayer(output_scale=1e30), r"output_scale must lie in \[-10,000, 10,000\], got 1e\+30"),
        (lambda: Balance(temperature=0.0), r"temperature of a balance must be above 0 and at most 10,000, got 0"),
        (lambda: Balance(temperature=1.0, initial=1e5), r"initial must lie in \[-10,000, 10,000\], got 100000"),
        (
            lambda: Sublayer(balance=Balance(temperature=1.0), skip_gain=Gain()),
            r"skip_gain must be absent in a sublayer with a balance",
        ),
        (lambda: Layer(span=True, bottom_to_top=True), r"bottom_to_top must be absent in a layer with span"),
        (lambda: Layer(span=True, parallel="separate"), r"span must be absent in a layer with parallel='separate'"),
        (
            lambda: Placement(name="x", layers=(Layer(span=True),), streams="dlcl"),
            r"'x': span requires a single stream, got 'dlcl'",
        ),
        (lambda: Norm(kind="group", groups=0), r"groups must be at least 1, got 0"),
        (lambda: ProjectionNorm(width="half"), r"must be 'head' or 'full', got 'half'"),
        (lambda: Placement(name="none", layers=()), r"'none' needs at least one layer"),
    ],
)
def test_impossible_record_is_refused_with_rule_and_value(build, message):
    with pytest.raises(PlacementError, match=message):
        build()


def test_placement_error_is_a_settings_error_a_mixln_error_and_a_value_error():
    assert issubclass(PlacementError, SettingsError)
    assert issubclass(SettingsError, MixlnError)
    assert issubclass(MixlnError, ValueError)


def test_records_are_frozen_hashable_and_equal_by_value():
    with pytest.raises(FrozenInstanceError):
        Sublayer().skip_scale = 2.0
    assert hash(placement("hybrid*", 3)) == hash(placement("hybrid*", 3))
    assert placement("pre", 3) != placement("pre", 4)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pre", "x ← x + A(N(x));  x ← x + F(N(x))"),
        ("post", "x ← N(x + A(x));  x ← N(x + F(x))"),
        ("hybrid", "x ← N(x + A_qkv(x));  x ← x + F(x)"),
        ("sandwich", "x ← x + N(A(N(x)));  x ← x + N(F(N(x)))"),
        ("res-post", "x ← x + N(A_QK(x));  x ← x + N(F(x))"),
        ("norm(qv)+norm(k,full)+pre", "x ← x + A_qKv(N(x));  x ← x + F(N(x))"),
        ("group(4)", "x ← x + A(N_4(x));  x ← x + F(N_4(x))"),
        ("deepnorm", "x ← N(1.682·x + A(x));  x ← N(1.682·x + F(x))"),
        ("lns", "x ← x + A(0.5·N(x));  x ← x + F(0.5·N(x))"),
        ("dssn", "x ← x + N[0.5](A(N(x)));  x ← x + N[0.5](F(N(x)))"),
        ("beam", "x ← 0.9354·x + 0.3536·N(A(N(x)));  x ← 0.9428·x + 0.3333·N(F(N(x)))"),
        ("minimax(2.5,0.5)", "x ← 2.5·N(x) + 0.5·A(N(x));  x ← 2.5·N(x) + 0.5·F(N(x))"),
        ("muse", "x ← α⊙x + β⊙N(A(N(x)));  x ← α⊙x + β⊙N(F(N(x)))"),
        ("hybrid-scaled", "x ← N(x + 0.5·A_qkv(x));  x ← x + 0.5·F(x)"),
        ("span", "x₀ ← x;  x ← N(x + A(x));  x ← N(x₀ + F(x))"),
        ("normformer", "x ← x + N(A_h(N(x)));  x ← x + F_n(N(x))"),
        ("simple", "x ← x + N(A_QKV(x));  x ← x + N(F_u(x))"),
        ("prores(100)+sandwich", "x ← x + min(t/400, 1)·N(A(N(x)));  x ← x + min(t/400, 1)·N(F(N(x)))"),
        ("gated+vres+qkvnorm+pre", "x ← x + A_qkvg1(N(x));  x ← x + F(N(x))"),
        ("gated+qkvnorm+pre", "x ← x + A_qkvg(N(x));  x ← x + F(N(x))"),
        ("multiplier(0.22)+layerscale+post", "x ← N(x + 0.22·λ⊙A(x));  x ← N(x + 0.22·λ⊙F(x))"),
        ("derf+peri", "x ← x + Derf(A(Derf(x)));  x ← x + Derf(F(Derf(x)))"),
    ],
)
def test_formula_of_the_fourth_layer_of_four(name, formula):
    assert placement(name, 4).layers[3].formula == formula


def test_a_number_belongs_to_layers_whose_scale_depends_on_it():
    siamese = placement("siamese", 2)
    layers = tuple(replace(layer, number=number) for layer, number in zip(siamese.layers, (3, 5), strict=True))
    numbered = replace(siamese, layers=layers)
    assert Placement.from_json(json.loads(json.dumps(numbered.to_json()))) == numbered
    with pytest.raises(PlacementError, match="number requires streams siamese, got 'resi-dual'"):
        replace(placement("resi-dual", 2), layers=layers)
    for wrong in (0, -1, 1025, 10**30):
        with pytest.raises(PlacementError, match=r"number of a layer must lie in \[1, 1024\]"):
            Layer(number=wrong)
