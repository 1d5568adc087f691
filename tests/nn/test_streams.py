"""Residual streams of several states: their norms, their start, and their number format."""

from __future__ import annotations

import math

import pytest
import torch

from mixln.errors import PlacementError
from mixln.nn.norms import DyT, GroupRMSNorm
from mixln.nn.streams import Combination
from mixln.placement import Layer, Placement
from mixln.placement import placement as build
from tests.tiny import placed, tokens

CONNECTED = ("mhc", "ihc", "gated-streams", "hc")


def test_combination_is_the_weighted_sum_of_its_states():
    combination = Combination(3)
    states = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combination(states), (states[..., :4] + states[..., 4:8] + states[..., 8:]) / 3)
    with torch.no_grad():
        combination.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(combination(states), states[..., :4] - 2 * states[..., 4:8] + 0.5 * states[..., 8:])


@pytest.mark.parametrize(
    "placement",
    [
        "pre",
        "resi-dual",
        "dlcl",
        "siamese",
        "attnres",
        "denseformer",
        "x0+pre",
        "prores+beam",
        "muse",
        "gated+minimax",
        *CONNECTED,
    ],
)
def test_under_autocast_the_stream_stays_float32(placement):
    model, seen = placed(placement), []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(tokens())
    assert seen == [torch.float32] * 3


@pytest.mark.parametrize(("modifier", "kind"), [("dyt", DyT), ("group(4)", GroupRMSNorm)])
def test_modifiers_of_norms_reach_those_of_the_streams(modifier, kind):
    assert isinstance(placed(f"{modifier}+resi-dual").model.stream_fold.dual_norm, kind)
    layers = placed(f"{modifier}+dlcl").model.layers
    assert isinstance(layers[0].embedding_history_norm, kind)
    assert all(isinstance(layer.history_norm, kind) for layer in layers)


def test_bottom_to_top_is_for_one_stream():
    with pytest.raises(PlacementError, match="bottom_to_top requires a single stream, got 'dlcl'"):
        Placement(name="own", layers=(Layer(bottom_to_top=True),), streams="dlcl")


@pytest.mark.parametrize("init", ["normal", "megatron", "deepnorm"])
def test_maps_start_where_their_authors_say_under_every_init(init):
    maps = placed("mhc", init=init, gains=False, hidden_size=128).model.layers[1].attention_residual.maps
    assert maps.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not maps.bias.any()
    assert torch.equal(maps.scale, torch.full((3,), 0.01))


def test_independent_streams_are_read_with_weights_that_sum_to_one_at_the_start():
    maps = placed("ihc", gains=False).model.layers[1].attention_residual.maps
    assert maps.bias.tolist() == pytest.approx([-math.log(3)] * 4 + [0.0] * 4)
    x = torch.randn(1, 3, 4, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(maps(x).stream, x.mean(-2), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["hc", "hc(3)", "hc(2,static)"])
def test_hyper_connections_start_as_pre_ln(name):
    """The streams are alike, so the branches of their sum are those of Pre-LN, and the final norm sees no scale."""
    ours, pre = (placed(text, gains=False)(tokens()).logits for text in (name, "pre"))
    torch.testing.assert_close(ours, pre, rtol=1e-4, atol=1e-4)


def test_hyper_connections_read_one_stream_after_the_other_at_the_start():
    model = placed("hc(3)", gains=False)
    read = [residual.maps.bias[:3].tolist() for layer in model.model.layers for _, residual in layer.sublayers]
    assert read == [[1, 0, 0], [0, 1, 0], [0, 0, 1]] * 2
    assert not any(residual.maps.weight.any() for layer in model.model.layers for _, residual in layer.sublayers)


def test_form_of_hyper_connections_that_is_not_known_is_refused():
    with pytest.raises(PlacementError, match=r"^hc\(4,frozen\): the form must be dynamic or static, got 'frozen'$"):
        build("hc(4,frozen)", 3)


@pytest.mark.parametrize("name", CONNECTED)
@pytest.mark.parametrize("count", ["0", "1", "65", "two", "-3", "9999999999"])
def test_number_of_streams_out_of_range_is_refused_in_one_line(name, count):
    with pytest.raises(PlacementError) as caught:
        build(f"{name}({count})", 3)
    assert str(caught.value) == f"{name}({count}): the number of streams must be an integer from 2 to 64, got '{count}'"


@pytest.mark.parametrize("name", CONNECTED)
def test_modifiers_of_the_skip_have_no_meaning_beside_maps(name):
    with pytest.raises(
        PlacementError, match=rf"gpas must be absent, because the maps of {name} replace the skip; a sublayer may"
    ):
        build(f"gpas+{name}", 3)
    assert build(f"layerscale+{name}", 3).layers[0].attention.branch_gain is not None


def test_number_of_streams_belongs_to_the_form_that_has_it():
    with pytest.raises(PlacementError, match="stream_count must be absent for streams 'dlcl', got 4"):
        Placement(name="own", layers=(Layer(),), streams="dlcl", stream_count=4)
    with pytest.raises(PlacementError, match=r"stream_count of mhc must lie in \[2, 64\], got 1"):
        Placement(name="own", layers=(Layer(),), streams="mhc")
    with pytest.raises(PlacementError, match=r"stream_count of mhc must lie in \[2, 64\], got far more"):
        Placement(name="own", layers=(Layer(),), streams="mhc", stream_count=10**5000)
    with pytest.raises(PlacementError, match=r"must use the same residual stream, got mhc\(2\), mhc\(4\)"):
        build("mhc(2)*1,mhc(4)", 3)


@pytest.mark.parametrize("name", CONNECTED)
def test_records_of_streams_survive_json(name):
    record = build(f"{name}(3)", 2)
    assert record.to_json()["stream_count"] == 3
    assert Placement.from_json(record.to_json()) == record
    assert "stream_count" not in build("dlcl", 2).to_json()


@pytest.mark.parametrize("name", CONNECTED)
def test_any_number_of_streams_runs(name):
    assert torch.isfinite(placed(f"{name}(2)")(tokens()).logits).all()
    assert (
        placed(f"{name}(2)")
        .model.layers[0](torch.zeros(1, 2, 32), position_embeddings=(torch.ones(1, 2, 8),) * 2)
        .shape[-1]
        == 64
    )


@pytest.mark.parametrize("name", ["denseformer", "denseformer(2)", "denseformer(3)"])
def test_denseformer_starts_as_pre_ln(name):
    ours, pre = (placed(text, gains=False)(tokens()).logits for text in (name, "pre"))
    assert torch.equal(ours, pre)


def test_depth_attention_starts_as_a_mean_of_its_sources():
    depth = placed("attnres", gains=False).model.stream_fold.depth
    states = torch.randn(2, 5, 3 * 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(depth(states), states.unflatten(-1, (3, 32)).mean(-2))


@pytest.mark.parametrize(("layers", "block"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 1), (12, 6), (24, 6), (32, 4)])
def test_default_block_divides_the_layers(layers, block):
    assert build("attnres", layers).stream_period == block


def test_width_between_layers_is_that_of_the_blocks():
    model, widths = placed("attnres(2)", num_hidden_layers=6), []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[-1] // 32))
    model(tokens())
    assert widths == [2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attnres(5)", "attnres(5): the block must divide the model's 12 layers, got 5"),
        ("attnres(0)", "attnres(0): the number of layers must be an integer of at least 1, got '0'"),
        ("attnres(24)", "attnres(24): the block must divide the model's 12 layers, got 24"),
        ("attnres(6,long)", "attnres(6,long): the form must be normed or absent, got 'long'"),
        ("denseformer(13)", "denseformer(13): the period must be at most the model's 12 layers, got 13"),
        ("denseformer(x)", "denseformer(x): the number of layers must be an integer of at least 1, got 'x'"),
    ],
)
def test_blocks_and_periods_that_do_not_fit_are_refused_in_one_line(text, message):
    with pytest.raises(PlacementError) as caught:
        build(text, 12)
    assert str(caught.value) == message


def test_a_record_whose_block_does_not_divide_is_refused():
    with pytest.raises(PlacementError, match="stream_period of attnres must divide the 3 layers, got 2"):
        Placement(name="own", layers=(Layer(),) * 3, streams="attnres", stream_period=2)
    with pytest.raises(PlacementError, match=r"stream_period of denseformer must lie in \[1, 3\], got 4"):
        Placement(name="own", layers=(Layer(),) * 3, streams="denseformer", stream_period=4)
    with pytest.raises(PlacementError, match=r"stream_eps must lie in \(0, 0.01\], got 0"):
        Placement(name="own", layers=(Layer(),) * 3, streams="mhc", stream_count=4, stream_eps=0.0)
    with pytest.raises(PlacementError, match="stream_eps requires streams mhc, ihc, got 'hc'; omit it"):
        Placement(name="own", layers=(Layer(),) * 3, streams="hc", stream_count=4, stream_eps=1e-5)
    with pytest.raises(PlacementError, match="stream_period must be absent for streams 'mhc', got 2"):
        Placement(name="own", layers=(Layer(),) * 3, streams="mhc", stream_count=4, stream_period=2)


def test_gates_on_the_skip_have_no_meaning_where_depth_attention_replaces_it():
    with pytest.raises(PlacementError, match="gpas must be absent, because the maps of attnres replace the skip"):
        build("gpas+attnres", 3)


@pytest.mark.parametrize("modifier", ["gpas", "layerscale", "qkvnorm", "dyt"])
def test_siamese_streams_take_modifiers(modifier):
    model = placed(f"{modifier}+siamese")
    assert torch.isfinite(model(tokens()).logits).all()
    residual = model.model.layers[2].attention_residual
    assert residual.share == pytest.approx(6**-0.5)
    assert isinstance(residual.second_in, DyT) == (modifier == "dyt")
