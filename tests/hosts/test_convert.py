"""Both layouts of a checkpoint do the same, what is not exact is refused, and the Mix-LN authors' files are read to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, OPTConfig, OPTForCausalLM

import mixln
from mixln.errors import CheckpointError, PlacementError
from mixln.hosts import HOSTS
from mixln.hosts.convert import from_mix_ln, is_mix_ln, place, unplace
from tests.hosts.families import config_of, inputs_of
from tests.reference.equations import decoder
from tests.tiny import logits, placed, randomise_gains, tiny_config, tokens

HEADS = [(name, head) for name, host in HOSTS.items() for head in host.heads]


def stock_model(name: str, head: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = HOSTS[name].heads[head][0]._from_config(config_of(name, **changes)).eval()
    randomise_gains(model)
    return model


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_there_and_back_is_the_same_checkpoint(name, head, tmp_path):
    stock = stock_model(name, head)
    there = place(stock)
    there.save_pretrained(tmp_path / "placed")
    back = unplace(mixln.from_pretrained(tmp_path / "placed"))
    assert type(back) is type(stock)
    assert back.state_dict().keys() == stock.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in stock.state_dict().items())
    given = {key: value for key, value in inputs_of(name).items() if key != "labels"}
    with torch.no_grad():
        assert torch.equal(there(**given).logits, stock(**given).logits)
    expected, actual = stock.config.to_dict(), back.config.to_dict()
    assert {key for key in expected | actual if expected.get(key) != actual.get(key)} <= {"dtype", "_name_or_path"}


@pytest.mark.parametrize(
    ("placement", "stock"),
    [("pre", "LlamaForCausalLM"), ("res-post", "Olmo2ForCausalLM"), ("qknorm+pre", "Qwen3ForCausalLM")],
)
def test_placed_llama_goes_to_the_family_that_does_the_same(placement, stock, tmp_path):
    model = placed(placement)
    found = unplace(model)
    assert type(found).__name__ == stock
    found.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again, tokens()), logits(model, tokens()), rtol=1e-5, atol=1e-5)


def test_the_families_with_one_body_go_into_each_other():
    llama = unplace(mixln.from_config(config_of("olmo2"), placement="bare+pre"))
    assert type(llama).__name__ == "LlamaForCausalLM"
    with pytest.raises(PlacementError, match="head_dim of this qwen3 is 16, which a stock olmo2 does not support"):
        unplace(mixln.from_config(config_of("qwen3"), placement="res-post"))
    with pytest.raises(
        PlacementError, match=r"layer_types of this qwen3 is .*sliding.*, which a stock llama does not support"
    ):
        unplace(mixln.from_config(config_of("qwen3"), placement="bare+pre"))


def test_what_a_config_says_without_effect_does_not_stand_in_the_way():
    config = config_of("qwen3", use_sliding_window=False, sliding_window=None, max_window_layers=36, head_dim=8)
    assert type(unplace(mixln.from_config(config, placement="bare+pre"))).__name__ == "LlamaForCausalLM"


def test_family_without_a_head_dim_goes_to_one_that_has_it():
    model = mixln.from_config(config_of("olmo2"), placement="qknorm+bare+pre")
    assert unplace(model).config.head_dim == 8


def test_model_without_a_head_is_not_given_one(tmp_path):
    mixln.from_config(config_of("llama"), placement="stock").model.save_pretrained(tmp_path)
    body = mixln.from_pretrained(tmp_path)
    assert type(body).__name__ == "PlacedLlamaModel"
    with pytest.raises(PlacementError, match="a LlamaModel cannot be converted"):
        unplace(body)


@pytest.mark.parametrize("name", ["mixtral", "llama"])
def test_weights_that_are_not_numbers_are_called_so(name):
    stock = stock_model(name, "causal-lm")
    with torch.no_grad():
        stock.lm_head.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="gives outputs that are not finite: its weights are corrupt"):
        place(stock)


def test_number_format_and_generation_settings_are_kept(tmp_path):
    stock_model("llama", "causal-lm").save_pretrained(tmp_path)
    stock = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    stock.generation_config.max_new_tokens = 7
    there = place(stock)
    assert (there.dtype, there.generation_config.max_new_tokens) == (torch.bfloat16, 7)
    assert unplace(there).dtype == torch.bfloat16


def test_a_tied_head_stays_tied():
    there = place(stock_model("llama", "causal-lm", tie_word_embeddings=True))
    assert there.lm_head.weight is there.model.embed_tokens.weight
    back = unplace(there)
    assert back.lm_head.weight is back.model.embed_tokens.weight


@pytest.mark.parametrize("placement", ["mix(0.5)", "hybrid*", "lns", "peri", "dyt+pre", "dlcl"])
def test_placement_without_a_stock_layout_is_refused_with_the_reason(placement):
    with pytest.raises(PlacementError, match=r"has no stock layout: .*, and llama has x ← x \+ A\(N\(x\)\)"):
        unplace(placed(placement))


def test_stock_weights_are_given_no_other_placement():
    with pytest.raises(
        PlacementError,
        match=r"cannot be given mix\(0\.5\): they were trained as .*layer 1 of mix\(0\.5\) is .*train mix",
    ):
        place(stock_model("llama", "causal-lm"), "mix(0.5)")
    assert place(stock_model("llama", "causal-lm"), "pre").config.placement["name"] == "pre"


def test_class_and_family_that_cannot_be_converted_are_named():
    with pytest.raises(
        PlacementError,
        match="a LlamaModel cannot be converted; classes of llama that can: LlamaForCausalLM, LlamaForSeq",
    ):
        place(stock_model("llama", "causal-lm").model)
    opt = OPTForCausalLM(
        OPTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, vocab_size=9)
    )
    with pytest.raises(
        PlacementError, match=r"OPTDecoderLayer does not end in a sum of stream and branch: modeling_opt\.py:"
    ):
        place(opt)


# --- the Mix-LN authors' checkpoints

THEIRS = {
    "post": {"attention_residual.stream_out": "post_attention_layernorm", "feed_forward_residual.stream_out": "post_feedforward_layernorm"},
    "pre": {"attention_residual.branch_in": "input_layernorm", "feed_forward_residual.branch_in": "post_attention_layernorm"},
    "sandwich": {
        "attention_residual.branch_in": "input_layernorm",
        "attention_residual.branch_out": "post_attention_layernorm",
        "feed_forward_residual.branch_in": "pre_feedforward_layernorm",
        "feed_forward_residual.branch_out": "post_feedforward_layernorm",
    },
}  # fmt: skip


def authors(folder: Path, kinds: list[str], *, file: str = "pytorch_model.bin") -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint as their code writes it, layer by layer of these kinds, and its weights under our names."""
    torch.manual_seed(0)
    body = {
        name: value for name, value in LlamaForCausalLM(tiny_config()).state_dict().items() if "layernorm" not in name
    }
    ours, theirs = dict(body), dict(body)
    for index, kind in enumerate(kinds):
        for slot, name in THEIRS[kind].items():
            gain = torch.rand(32) + 0.5
            ours[f"model.layers.{index}.{slot}.weight"] = theirs[f"model.layers.{index}.{name}.weight"] = gain
        theirs[f"model.layers.{index}.self_attn.rotary_emb.inv_freq"] = torch.rand(4)
    folder.mkdir()
    if file.endswith(".bin"):
        torch.save(theirs, folder / file)
    else:
        save_file(theirs, folder / file)
    config = {**tiny_config().to_dict(), "architectures": ["LLaMAForCausalLM"], "max_sequence_length": 1024}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, {name: value.double() for name, value in ours.items()}


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize(
    ("placement", "kinds"),
    [
        ("mix(2/3)", ["post", "post", "pre"]),
        ("post", ["post"] * 3),
        ("pre", ["pre"] * 3),
        ("sandwich", ["sandwich"] * 3),
    ],
)
def test_a_checkpoint_of_the_authors_does_what_the_equations_say(tmp_path, placement, kinds, file):
    folder, weights = authors(tmp_path / "theirs", kinds, file=file)
    config = tiny_config()
    assert is_mix_ln(folder, config) == (placement != "pre")
    model = from_mix_ln(folder, config, placement)
    expected = decoder(placement, weights, tokens(), 3)
    torch.testing.assert_close(logits(model.double(), tokens()), expected, rtol=1e-5, atol=1e-5)
    model.float().save_pretrained(tmp_path / "ours")
    assert mixln.from_pretrained(tmp_path / "ours").config.placement["name"] == placement


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (
            "pre",
            r"is not pre: norm model\.layers\.0\.input_layernorm\.weight is missing; its norms are those of post\*1,pre\*2",
        ),
        (
            "post",
            r"norm model\.layers\.1\.post_feedforward_layernorm\.weight is missing; its norms are those of post\*1,pre\*2",
        ),
        ("mix(2/3)", r"its norms are those of post\*1,pre\*2"),
        (
            "hybrid",
            r"hybrid cannot be read from a checkpoint of the Mix-LN authors: only Pre-LN.*, got x ← N\(x \+ A_qkv",
        ),
        ("deepnorm", r"deepnorm cannot be read from a checkpoint of the Mix-LN authors"),
        (
            "peri",
            r"peri cannot be read from a checkpoint of the Mix-LN authors: it has norms or streams outside its layers",
        ),
        ("dlcl", r"dlcl cannot be read .* norms or streams outside"),
        ("prelude", r"placement 'prelude' is not known"),
    ],
)
def test_another_placement_than_the_norms_of_the_file_is_refused(tmp_path, placement, message):
    folder, _ = authors(tmp_path / "theirs", ["post", "pre", "pre"])
    with pytest.raises((CheckpointError, PlacementError), match=message):
        from_mix_ln(folder, tiny_config(), placement)


def edited(folder: Path, **changes: Tensor | None) -> Path:
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name, value in changes.items():
        weights.pop(name, None)
        if value is not None:
            weights[name] = value
    save_file(weights, path)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.layers.2.input_layernorm.weight": None},
            r"norm .*2\.input_layernorm\.weight is missing; .*something else\*1",
        ),
        ({"model.layers.0.input_layernorm.weight": torch.ones(32)}, r"norm .*0\.input_layernorm\.weight is extra"),
        ({"model.layers.1.mlp.up_proj.weight": None}, r"weight .*1\.mlp\.up_proj\.weight is missing"),
        ({"model.layers.1.mlp.up_proj.bias": torch.ones(48)}, r"weight .*1\.mlp\.up_proj\.bias is extra"),
        ({"model.norm.weight": torch.ones(31)}, r"size mismatch for model\.norm\.weight"),
    ],
)
def test_damaged_checkpoint_of_the_authors_is_refused_by_name(tmp_path, changes, message):
    folder, _ = authors(tmp_path / "theirs", ["post", "pre", "pre"], file="model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        from_mix_ln(edited(folder, **changes), tiny_config(), "post*1,pre")


def test_folder_without_weights_or_with_broken_ones_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors, pytorch_model\.bin"):
        from_mix_ln(tmp_path, tiny_config(), "mix(0.5)")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        from_mix_ln(tmp_path, tiny_config(), "mix(0.5)")
