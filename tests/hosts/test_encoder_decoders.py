"""Encoder-decoders: two stacks, each with its own depth, and cross-attention as a third sublayer of the decoder's layers."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForSeq2SeqLM, BartConfig, PreTrainedModel

import mixln
from mixln.cli import main
from mixln.errors import CheckpointError, PlacementError, PlacementWarning
from mixln.hosts.families import host_of
from mixln.hosts.probe import probe
from mixln.hosts.shrunken import shrunken
from mixln.hosts.sources import find_model
from mixln.placement import Layer, Norm, Placement, Sublayer
from mixln.placement.preflight import is_post

PRE, POST = Sublayer(branch_in=Norm()), Sublayer(stream_out=Norm())
FAMILIES = ("bart", "t5", "whisper")


def config_of(name: str, **changes: Any) -> Any:
    """A small config with 4 layers in the encoder and 3 in the decoder."""
    return shrunken(CONFIG_MAPPING[name], **changes)


def stock(name: str) -> PreTrainedModel:
    """A small stock model whose norms have gains of their own."""
    torch.manual_seed(0)
    model = next(iter(host_of(name).heads.values()))[0](config_of(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def placed(name: str, placement: str, init: str | None = None, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return mixln.from_config(config_of(name, **changes), placement=placement, init=init).eval()


def records(name: str, placement: str) -> Placement:
    return mixln.hosts.placement_for(config_of(name), placement)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_share_of_the_layers_is_one_of_each_stack(name: str):
    built = records(name, "mix(0.5)")
    assert [is_post(layer) for layer in built.encoder] == [True, True, False, False]
    assert [is_post(layer) for layer in built.layers] == [True, False, False]


def test_cross_attention_is_placed_as_the_attention_of_its_layer():
    built = records("bart", "post*1,layerscale+sandwich")
    assert all(layer.cross_attention == layer.attention for layer in built.layers)
    assert all(layer.cross_attention is None for layer in built.encoder)
    assert records("bart", "mix(0.5)").layers[0].formula == "x ← N(x + A(x));  x ← N(x + C(x));  x ← N(x + F(x))"
    attention, cross, _ = records("t5", "hybrid").layers[1].formula.split(";  ")
    assert cross == attention.replace("A_qkv", "C_qkv") != attention
    again = Placement.from_json(json.loads(json.dumps(built.to_json())))
    assert again == built


def test_a_decoder_layer_is_its_three_equations():
    """With gains that differ, so that a norm in the wrong place shows."""
    model: Any = placed("bart", "mix(0.5)")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_residual." in name:
                parameter += torch.randn_like(parameter)
    layer, other = model.model.decoder.layers[0], model.model.decoder.layers[1]
    x, encoded = torch.randn(2, 5, 64), torch.randn(2, 7, 64)

    def attend(layer: Any, x: Tensor) -> Tensor:
        return layer.self_attn(x)[0]

    def cross(layer: Any, x: Tensor) -> Tensor:
        return layer.encoder_attn(x, key_value_states=encoded)[0]

    def feed(layer: Any, x: Tensor) -> Tensor:
        return layer.fc2(layer.activation_fn(layer.fc1(x)))

    def norm(layer: Any, name: str, slot: str) -> nn.Module:
        return layer.get_submodule(f"{name}_residual.{slot}")

    y = norm(layer, "attention", "stream_out")(x + attend(layer, x))
    y = norm(layer, "cross_attention", "stream_out")(y + cross(layer, y))
    y = norm(layer, "feed_forward", "stream_out")(y + feed(layer, y))
    torch.testing.assert_close(layer(x, encoder_hidden_states=encoded), y)
    z = x + attend(other, norm(other, "attention", "branch_in")(x))
    z = z + cross(other, norm(other, "cross_attention", "branch_in")(z))
    z = z + feed(other, norm(other, "feed_forward", "branch_in")(z))
    torch.testing.assert_close(other(x, encoder_hidden_states=encoded), z)


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_on_projections_are_also_those_of_the_cross_attention(name: str):
    model = placed(name, "hybrid")
    attentions = [
        layer.get_submodule(names[0])
        for layer in mixln.nn.residual.placed_layers(model)
        for names in layer.branch_modules[:-1]
    ]
    assert len(attentions) == 4 + 2 * 3
    inputs = probe(model, length=6)
    before = model(**inputs).logits
    for attention in attentions:
        assert [slot for slot in ("query", "key", "value") if hasattr(attention, f"{slot}_norm")] == [
            "query",
            "key",
            "value",
        ]
    with torch.no_grad():
        attentions[-1].key_norm.weight.mul_(3)
    assert not torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("name", FAMILIES)
def test_place_and_unplace_keep_logits_and_hidden_states_to_the_bit(name: str):
    model = stock(name)
    copy = pickle.loads(pickle.dumps(mixln.place(model)))
    inputs = probe(model, length=6)
    expected, found = (each(**inputs, output_hidden_states=True) for each in (model, copy))
    assert torch.equal(found.logits, expected.logits)
    for states in ("encoder_hidden_states", "decoder_hidden_states"):
        pairs = list(zip(found[states], expected[states], strict=True))
        assert len(pairs) == (5 if "encoder" in states else 4)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    again = mixln.unplace(copy)
    assert type(again) is type(model)
    assert torch.equal(again(**inputs).logits, expected.logits)


def test_padding_of_both_texts_is_masked_as_in_the_stock_model():
    model = stock("bart")
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": ids.ne(1).long(), "decoder_input_ids": ids.flip(1).clamp(min=2)}
    expected, found = (each(**inputs, labels=ids) for each in (model, mixln.place(model)))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)


def test_placements_start_with_the_same_weights_and_constants():
    one, other = (placed("whisper", placement, init="normal").state_dict() for placement in ("pre", "hybrid"))
    shared = [key for key in one.keys() & other.keys() if one[key].ndim >= 2]
    assert len(shared) > 55
    assert all(torch.equal(one[key], other[key]) for key in shared)
    positions = "model.encoder.embed_positions.weight"
    assert torch.equal(one[positions], stock("whisper").state_dict()[positions])


def test_initialisation_divides_by_the_depth_of_the_weights_own_stack():
    scaled = {layers: placed("bart", "pre", init="scaled", decoder_layers=layers).state_dict() for layers in (2, 8)}
    name = "model.{}.layers.0.self_attn.out_proj.weight"
    encoder, decoder = (
        [scaled[layers][name.format(stack)].std() for layers in (2, 8)] for stack in ("encoder", "decoder")
    )
    torch.testing.assert_close(encoder[0], encoder[1], rtol=0.1, atol=0)
    torch.testing.assert_close(decoder[0], 2 * decoder[1], rtol=0.1, atol=0)


def test_checkpoint_refuses_to_open_as_another_depth(tmp_path):
    placed("bart", "mix(0.5)").save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    assert entries["encoder_layers"] == entries["decoder_layers"]
    entries["placement"]["encoder"].pop()
    (tmp_path / "config.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=r"weight model\.encoder\.layers\.2\.final_norm\.bias is missing"):
        mixln.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("family", "placement", "line"),
    [
        ("bart", "hc(2)", "placement 'hc(2)': an encoder and cross-attention require a single stream, got 'hc'"),
        ("bart", "post*4", "its parts have 4 layers, the model has 3"),
        ("prophetnet", "hybrid", "a norm on the query projection cannot be placed in prophetnet"),
        ("bart", Placement(name="mine", layers=(Layer(),) * 3), "'mine' has 0 encoder layers, but bart has 4"),
        (
            "bart", Placement(name="mine", layers=(Layer(),) * 3, encoder=(Layer(),) * 4),
            "'mine': cross_attention of layer 1 must be present in the decoder of bart",
        ),
        ("llama", Placement(name="mine", layers=(Layer(),) * 4, encoder=(Layer(),)), "'mine' has an encoder, and llama has none"),
        (
            "llama", Placement(name="mine", layers=(Layer(cross_attention=PRE),) * 4),
            "cross_attention of layer 1 must be absent where there is none of llama",
        ),
    ],
)  # fmt: skip
def test_placement_that_does_not_fit_is_refused(family: str, placement: str | Placement, line: str):
    with pytest.raises(PlacementError) as caught:
        mixln.from_config(config_of(family), placement=placement)
    assert line in str(caught.value)


def test_what_cross_attention_cannot_be_combined_with_is_refused_in_a_record():
    with pytest.raises(PlacementError, match="an encoder and cross-attention require a single stream, got 'dlcl'"):
        Placement(name="mine", layers=(Layer(cross_attention=PRE),), streams="dlcl")
    with pytest.raises(PlacementError, match="cross_attention must be absent in a layer with parallel='separate'"):
        Layer(cross_attention=PRE, parallel="separate")


def test_cross_attention_may_be_placed_differently_in_a_record():
    built = records("bart", "pre")
    mine = replace(built, name="mine", layers=tuple(replace(layer, cross_attention=POST) for layer in built.layers))
    model = mixln.from_config(config_of("bart"), placement=mine)
    assert "model.decoder.layers.0.cross_attention_residual.stream_out.weight" in model.state_dict()


def test_matrices_of_a_layer_are_unit_where_that_layer_of_its_own_stack_asks_for_it():
    model = placed("bart", "ngpt*1,pre*1", encoder_layers=2, decoder_layers=2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    mixln.set_step(model, 0)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {".".join(name.split(".")[:4]) for name in changed} == {
        "model.encoder.layers.0", "model.decoder.layers.0", "model.shared.weight",
    }  # fmt: skip


def test_method_with_other_constants_for_two_stacks_warns():
    with pytest.warns(PlacementWarning, match="takes the constants of a single stack in encoder and decoder"):
        mixln.from_config(config_of("bart"), placement="deepnorm")


def test_a_decoder_without_the_encoders_output_is_refused():
    model: Any = placed("bart", "pre")
    with pytest.raises(ValueError, match="encoder_hidden_states is missing: this layer has cross-attention"):
        model.model.decoder(input_ids=torch.tensor([[2, 3]]))


def test_command_converts_and_no_other_command_takes_one(tmp_path, capsys):
    model: Any = AutoModelForSeq2SeqLM.from_config(
        BartConfig(vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
                   decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32)
    ).eval()  # fmt: skip
    model.save_pretrained(tmp_path / "stock")
    assert main(["convert", str(tmp_path / "stock"), "--out", str(tmp_path / "placed")]) == 0
    assert main(["convert", str(tmp_path / "placed"), "--out", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    inputs = probe(model, length=5)
    for folder in ("placed", "again"):
        found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / folder).eval()
        assert torch.equal(found(**inputs).logits, model(**inputs).logits)
    for command in ("diagnose", "prune", "evaluate"):
        more = ["--out", str(tmp_path / command)]
        assert main([command, str(tmp_path / "placed"), *more, *(["--remove", "1"] if command == "prune" else [])]) == 2
        assert "is an encoder-decoder (placed_bart), which can be placed and converted only" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="is an encoder-decoder"):
        find_model(str(tmp_path / "stock"), cache=tmp_path)
