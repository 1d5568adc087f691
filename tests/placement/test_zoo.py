"""The zoo: rounding of α, and what depends on the layer's index or on the depth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.errors import PlacementError
from mixln.placement import ZOO, Anchor, Gain, Norm, Sublayer, placement
from mixln.placement.entry import POST, PRE
from mixln.placement.preflight import is_post

LAYERS = st.integers(min_value=1, max_value=200)


def post_count(text: str, layers: int) -> int:
    """Number of Post-LN layers, which must be the first ones, with Pre-LN after them."""
    records = placement(text, layers).layers
    count = sum(record == POST for record in records)
    assert records == (POST,) * count + (PRE,) * (layers - count)
    return count


@pytest.mark.parametrize(
    ("alpha", "layers", "count"),
    [
        ("0.33", 24, 7),
        ("0.25", 12, 3),
        ("1/3", 12, 4),
        ("0.29", 100, 29),
        ("0.57", 100, 57),
        ("0.0625", 32, 2),
        ("0.25", 3, 0),
        ("0.25", 4, 1),
        ("0.9999", 12, 11),
        ("2.5e-1", 12, 3),
        ("1.0", 12, 12),
        ("0.0", 12, 0),
    ],
)
def test_share_of_post_layers_is_rounded_down_exactly(alpha, layers, count):
    assert post_count(f"mix({alpha})", layers) == count


def test_binary_floating_point_would_lose_a_layer_here():
    assert math.floor(0.29 * 100) == 28
    assert post_count("mix(0.29)", 100) == 29


@given(thousandths=st.integers(0, 1000), layers=LAYERS)
def test_decimal_share_is_rounded_down_exactly(thousandths, layers):
    assert post_count(f"mix({thousandths // 1000}.{thousandths % 1000:03d})", layers) == thousandths * layers // 1000


@given(tenths=st.integers(1, 9), tens=st.integers(1, 20))
def test_share_written_by_python_never_loses_a_layer(tenths, tens):
    assert post_count(f"mix({tenths / 10})", 10 * tens) == tenths * tens


@given(denominator=st.integers(1, 50), layers=LAYERS, data=st.data())
def test_fraction_is_rounded_down_exactly(denominator, layers, data):
    numerator = data.draw(st.integers(0, denominator))
    assert post_count(f"mix({numerator}/{denominator})", layers) == numerator * layers // denominator


@pytest.mark.parametrize("count", [2, 3, 12])
def test_integer_of_two_and_more_is_a_count(count):
    assert post_count(f"mix({count})", 12) == count


@pytest.mark.parametrize("layers", [1, 3, 12])
def test_mix_ends_are_pre_and_post(layers):
    assert placement("mix(0)", layers).layers == placement("pre", layers).layers
    assert placement("mix(1)", layers).layers == placement("post", layers).layers


def test_mix_without_argument_is_a_quarter():
    assert placement("mix", 12).layers == placement("mix(0.25)", 12).layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mix(1.5)", r"α must lie in \[0, 1\], got 1\.5; it is the share of Post-LN layers"),
        ("mix(-1)", r"α must lie in \[0, 1\], got -1"),
        ("mix(-0.1)", r"α must lie in \[0, 1\], got -0\.1"),
        ("mix(2.0)", r"α must lie in \[0, 1\], got 2"),
        ("mix(13)", r"^mix\(13\): the number of Post-LN layers must be at most the model's 12, got 13"),
        ("mix(x)", r"^mix\(x\): α must be a number such as 0\.25 or 1/4, or a count such as 3, got 'x'"),
        ("mix(1/0)", r"^mix\(1/0\): α must be a number"),
        ("mix(nan)", r"^mix\(nan\): α must be a number"),
        ("mix(--1)", r"^mix\(--1\): α must be a number"),
    ],
)
def test_impossible_share_is_refused_with_rule_and_value(text, message):
    with pytest.raises(PlacementError, match=message):
        placement(text, 12)


def test_huge_share_is_refused():
    with pytest.raises(PlacementError):
        placement("mix(1e400)", 12)


def squared_scales(text: str, layers: int) -> list[float]:
    """Of both sublayers of each layer."""
    sublayers = [(layer.attention, layer.feed_forward) for layer in placement(text, layers).layers]
    return [sublayer.branch_scale**2 for pair in sublayers for sublayer in pair]


def test_layer_norm_scaling_divides_by_the_root_of_the_layer_index_for_both_sublayers():
    assert squared_scales("lns", 4) == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 4, 1 / 4], rel=1e-12)


def test_layer_norm_scaling_counts_layers_of_the_whole_model_in_a_mixture():
    assert squared_scales("post*2,lns*1,pre", 4) == pytest.approx([1, 1, 1, 1, 1 / 3, 1 / 3, 1, 1], rel=1e-12)
    assert placement("post*4,lns", 12).layers[4:] == placement("lns", 12).layers[4:]


@pytest.mark.parametrize("layers", [1, 8, 24, 32])
def test_deepnorm_alpha_is_the_fourth_root_of_twice_the_depth(layers):
    for layer in placement("deepnorm", layers).layers:
        for sublayer in (layer.attention, layer.feed_forward):
            assert sublayer.skip_scale**4 == pytest.approx(2 * layers, rel=1e-12)
            assert sublayer.stream_out == Norm()


def test_deepnorm_alpha_in_a_mixture_is_that_of_the_whole_model():
    assert placement("deepnorm*2,pre", 12).layers[:2] == placement("deepnorm", 12).layers[:2]


def test_hybrid_star_differs_from_hybrid_in_its_first_layer_only():
    star, plain = placement("hybrid*", 6).layers, placement("hybrid", 6).layers
    assert star[1:] == plain[1:]
    assert star[0].attention.branch_in == star[0].feed_forward.branch_in == Norm()
    assert star[0].attention.stream_out is None
    assert star[0].projections == plain[0].projections
    assert plain[0].projections.letters == "qkv"
    assert plain[0].feed_forward.branch_in is plain[0].feed_forward.stream_out is None


def test_projection_norms_are_per_head_in_hybrid_and_of_full_width_in_res_post():
    assert placement("hybrid", 1).layers[0].projections.value.width == "head"
    projections = placement("res-post", 1).layers[0].projections
    assert (projections.query.width, projections.key.width, projections.value) == ("full", "full", None)


def test_peri_is_sandwich_with_a_norm_on_the_embeddings():
    assert placement("peri", 5).layers == placement("sandwich", 5).layers
    assert placement("peri", 5).embedding_norm == Norm()
    assert placement("sandwich", 5).embedding_norm is None


def test_group_is_pre_with_its_norms_in_groups():
    assert placement("group(8)", 2).layers == placement("group(8)+pre", 2).layers
    assert placement("group", 2).layers[0].attention.branch_in == Norm(kind="group", groups=4)


@pytest.mark.parametrize("name", ZOO)
def test_every_entry_says_what_it_is_and_where_it_comes_from(name):
    entry = ZOO[name]
    assert entry.name == name
    assert entry.title
    assert "x ←" in entry.formula or "Pre-LN" in entry.formula
    assert "arXiv:" in entry.source or "transformers'" in entry.source or name == "stock"


@pytest.mark.parametrize(
    ("name", "post"),
    [("post", True), ("pre", False), ("hybrid", False), ("deepnorm", False), ("sandwich", False), ("res-post", False)],
)
def test_only_post_layers_count_as_post(name, post):
    assert is_post(placement(name, 2).layers[1]) is post


def test_keel_scales_its_skips_by_the_number_of_sublayers_except_in_the_first_layer():
    first, *rest = placement("keel", 5).layers
    assert first == PRE
    assert {(sub.skip_scale, sub.branch_in, sub.stream_out) for layer in rest for sub in layer.sublayers} == {
        (10.0, Norm(), Norm())
    }


@pytest.mark.parametrize(("layers", "start"), [(18, 0.1), (24, 1e-5), (25, 1e-6)])
def test_layer_scale_starts_as_its_paper_says_or_as_told(layers, start):
    assert placement("layerscale+pre", layers).layers[3].feed_forward.branch_gain == Gain(initial=start)
    assert placement("layerscale(0.5)+pre", layers).layers[3].attention.branch_gain == Gain(initial=0.5)


def test_gpas_gates_the_sum_of_pre_layers_and_the_skip_of_layers_that_end_in_a_norm():
    gates = [sub.gpas for layer in placement("gpas+mix(0.5)", 2).layers for sub in layer.sublayers]
    assert gates == ["skip", "skip", "stream", "stream"]


def test_dyt_replaces_every_norm_of_the_stream_and_no_other():
    dyt = Norm(kind="dyt", alpha=0.5)
    built = placement("dyt+qknorm+peri", 2)
    assert built.embedding_norm == built.final_norm == dyt
    assert built.layers[0].attention == Sublayer(branch_in=dyt, branch_out=dyt)
    assert built.layers[0].projections.query.norm == Norm()
    assert placement("dyt+post*1,pre", 2).final_norm == Norm()


@pytest.mark.parametrize(
    ("variant", "letters", "attention", "feed_forward"),
    [
        ("qkv-post", "qkv", Sublayer(stream_out=Norm()), Sublayer()),
        ("kv-post", "kv", Sublayer(stream_out=Norm()), Sublayer()),
        ("qkvc-pre", "qkvc", Sublayer(), Sublayer(branch_in=Norm())),
        ("pre-qk-post", "qk", Sublayer(branch_in=Norm(), stream_out=Norm()), Sublayer()),
        ("pre-qkv-pre", "qkv", Sublayer(branch_in=Norm()), Sublayer(branch_in=Norm())),
        ("pre-post", "", Sublayer(branch_in=Norm(), stream_out=Norm()), Sublayer()),
        ("post-pre", "", Sublayer(stream_in=Norm()), Sublayer(branch_in=Norm())),
    ],
)
def test_variants_of_the_ablation_of_hybrid_norm(variant, letters, attention, feed_forward):
    built = placement(f"hybrid({variant})", 2)
    assert built.init == "megatron"
    for layer in built.layers:
        assert (layer.projections.letters, layer.attention, layer.feed_forward) == (letters, attention, feed_forward)


def test_beam_weighs_the_embeddings_and_every_branch_alike():
    """Unrolled, the stream after k − 1 sublayers is the sum of k terms over √k."""
    shares = [1.0]
    for layer in placement("beam", 5).layers:
        for sub in layer.sublayers:
            shares = [sub.skip_scale * share for share in shares] + [sub.output_scale]
    assert len(shares) == 11
    assert shares == pytest.approx([11**-0.5] * 11, rel=1e-12)


def test_initial_gain_of_the_depth_scaled_sandwich():
    for text, start in (("dssn", 0.5), ("dssn(0.3)", 0.15)):
        sub = placement(text, 4).layers[2].feed_forward
        assert (sub.branch_in, sub.branch_out) == (Norm(), Norm(gain=start))
    assert placement("group(2)+dssn", 4).layers[0].attention.branch_out == Norm(kind="group", groups=2, gain=0.5)


def test_minimax_has_the_published_constant_at_80_layers():
    sub = placement("minimax", 80).layers[79].attention
    assert (sub.skip_scale, sub.output_scale) == (pytest.approx(3.5565588200778455, rel=1e-12), 1.0)


def test_branches_of_scaled_hybrid_norm_shrink_with_the_layer_index_of_both_sublayers():
    scales = [[sub.output_scale**2 for sub in layer.sublayers] for layer in placement("hybrid-scaled", 3).layers]
    assert scales == [pytest.approx([1 / index] * 2) for index in (1, 2, 3)]
    plain = placement("hybrid", 3).layers
    assert placement("hybrid-scaled", 3).layers[0] == plain[0]


def test_only_the_first_layer_of_span_norm_normalizes_the_attentions_input():
    first, *rest = placement("span", 4).layers
    assert first.attention == Sublayer(branch_in=Norm(), stream_out=Norm())
    assert {layer.attention for layer in rest} == {Sublayer(stream_out=Norm())}
    assert all(layer.span and not is_post(layer) for layer in (first, *rest))


def test_residual_multiplier_multiplies_what_is_there():
    assert placement("multiplier+pre", 49).layers[0].attention.output_scale == pytest.approx(0.2)
    beam, doubled = placement("beam", 3).layers[1].attention, placement("multiplier(2)+beam", 3).layers[1].attention
    assert doubled.output_scale == pytest.approx(2 * beam.output_scale)
    assert doubled.skip_scale == beam.skip_scale


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dssn(0)", r"^dssn\(0\): c must be a number above 0, got '0'"),
        ("minimax(x)", r"^minimax\(x,1\): α must be a number above 0, got 'x'"),
        ("minimax(1,-1)", r"^minimax\(1,-1\): β must be a number above 0, got '-1'"),
        ("muse(0)", r"^muse\(0\): the temperature must be a number above 0, got '0'"),
        ("multiplier(nan)+pre", r"^multiplier\(nan\): c must be a number above 0, got 'nan'"),
        ("derf(-1)+pre", r"^derf\(-1\): α must be a number above 0"),
        ("bhyt(0)+pre", r"^bhyt\(0\): λ must be a number above 0"),
        ("x0+dlcl", r"^x0: needs a placement of one residual stream, got dlcl; choose one such as pre"),
        ("x0(a)+pre", r"^x0\(a,0\): λ must be a number, got 'a'"),
        ("x0(,0.5)+pre", r"^x0\(,0.5\): λ must be a number, got ''"),
        ("vres(0.5,x)+pre", r"^vres\(0\.5,x\): μ must be a number, got 'x'"),
        ("group+gated-streams", r"^group: gated-streams normalizes each stream inside its maps, and has no other norm"),
        ("dyt+gated-streams", r"^dyt: gated-streams normalizes each stream inside its maps"),
        ("siamese*2,group+siamese", r"all parts of a mixture must use the same norm between residual streams"),
        ("x0(1,inf)+pre", r"^x0\(1,inf\): μ must be a number, got 'inf'"),
        ("x0+pre*2,post", r"all parts of a mixture must use the same residual stream, got anchored, single"),
        ("prores(0)+pre", r"^prores\(0\): T must be a number of optimizer steps of at least 1, got '0'"),
        ("prores(1.5)+pre", r"^prores\(1\.5\): T must be a number of optimizer steps"),
        ("prores(999999999999)+pre", r"^ramp must be a number of steps from 1 to 1,000,000,000,000, got "),
        ("gated(half)+pre", r"^gated\(half\): the width must be head or full, got 'half'"),
        ("dssn(1e9)", r"^gain must lie in \[-10,000, 10,000\]"),
        ("layerscale+muse", r"^layerscale: the placement has a gate that scales its branches; remove layerscale"),
    ],
)
def test_impossible_constant_is_refused(text, message):
    with pytest.raises(PlacementError, match=message):
        placement(text, 4)


def test_anchors_start_as_in_nanochat_or_as_told():
    assert not placement("x0+pre", 5).only_layers
    assert placement("pre", 5).only_layers
    built = placement("x0+peri", 5)
    pairs = [(layer.anchor.keep, layer.anchor.add) for layer in built.layers]
    assert pairs[0] == pytest.approx((1.15, 0.2))
    assert pairs[2] == pytest.approx((1.1, 0.125))
    assert pairs[4] == pytest.approx((1.05, 0.05))
    assert (built.streams, built.embedding_norm) == ("anchored", Norm())
    assert placement("x0(1,0)+pre", 2).layers[1].anchor == Anchor(keep=1.0, add=0.0)


def test_the_values_of_the_first_layer_are_not_mixed_with_themselves():
    built = placement("bare+vres+mix(0.5)", 4)
    assert [layer.projections.first_value for layer in built.layers] == [None, *[Anchor(keep=0.5, add=0.5)] * 3]
    assert built.carries_values
    assert not placement("vres+pre*1,post", 4).carries_values
    assert placement("pre*1,vres+post", 4).carries_values


def test_progressive_residuals_grow_over_more_steps_in_deeper_layers():
    ramps = [[sub.ramp for sub in layer.sublayers] for layer in placement("prores(200)+post*1,prores+pre", 3).layers]
    assert ramps == [[200, 200], [2000, 2000], [3000, 3000]]


def test_only_admin_is_profiled():
    assert [name for name in ZOO if placement(name, 3).profiled] == ["admin"]


@pytest.mark.parametrize("alpha", ["0", "-1", "x", "nan", "inf"])
def test_a_fixed_alpha_of_deepnorm_must_be_a_number(alpha):
    with pytest.raises(PlacementError, match="α must be a number above 0"):
        placement(f"deepnorm({alpha})", 4)
