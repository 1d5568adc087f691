"""What does not fit is an error that names it; nothing is loaded half."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mixln.hosts.families.llama import PlacedLlamaConfig, PlacedLlamaForCausalLM
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import mixln
from mixln.errors import CheckpointError, PlacementError, SettingsError
from mixln.hosts.shrunken import shrunken
from tests.hosts.families import config_of
from tests.tiny import placed, tiny_config

NORMS = [
    ("pre", "model.layers.1.attention_residual.branch_in.weight"),
    ("mix(0.5)", "model.layers.0.feed_forward_residual.stream_out.weight"),
    ("sandwich", "model.layers.2.attention_residual.branch_out.weight"),
    ("peri", "model.layers.0.stream_in.weight"),
    ("hybrid", "model.layers.1.self_attn.value_norm.weight"),
    ("res-post", "model.layers.0.self_attn.query_norm.weight"),
    ("post", "model.norm.weight"),
]
LOADERS = [mixln.from_pretrained, AutoModelForCausalLM.from_pretrained, PlacedLlamaForCausalLM.from_pretrained]


def damaged(folder: Path, placement: str, edit: Callable[[dict[str, Tensor]], Any]) -> Path:
    """A checkpoint whose weights were edited after it was written."""
    placed(placement).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reconfigured(folder: Path, placement: str, edit: Callable[[dict[str, Any]], Any]) -> Path:
    placed(placement).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("load", LOADERS, ids=["mixln", "auto", "class"])
@pytest.mark.parametrize(("placement", "norm"), NORMS)
def test_missing_norm_is_named(placement, norm, load, tmp_path):
    damaged(tmp_path, placement, lambda weights: weights.pop(norm))
    with pytest.raises(CheckpointError, match=rf"weight {re.escape(norm)} is missing"):
        load(tmp_path)


@pytest.mark.parametrize("load", LOADERS, ids=["mixln", "auto", "class"])
@pytest.mark.parametrize(
    ("placement", "norm"),
    [
        ("pre", "model.layers.1.attention_residual.stream_out.weight"),
        ("hybrid", "model.layers.0.feed_forward_residual.branch_in.weight"),
        ("sandwich", "model.layers.0.stream_in.weight"),
        ("pre", "model.layers.1.input_layernorm.weight"),
        ("pre", "model.layers.3.attention_residual.branch_in.weight"),
    ],
)
def test_extra_norm_is_named(placement, norm, load, tmp_path):
    damaged(tmp_path, placement, lambda weights: weights.update({norm: torch.ones(32)}))
    with pytest.raises(CheckpointError, match=rf"weight {re.escape(norm)} is extra"):
        load(tmp_path)


@pytest.mark.parametrize(("placement", "norm"), NORMS)
def test_misshapen_norm_is_named(placement, norm, tmp_path):
    damaged(tmp_path, placement, lambda weights: weights.update({norm: torch.ones(6)}))
    with pytest.raises(CheckpointError, match=rf"weight {re.escape(norm)} is misshapen"):
        mixln.from_pretrained(tmp_path)


@pytest.mark.parametrize(("placement", "norm"), NORMS)
def test_misshapen_norm_is_not_ignored_on_demand(placement, norm, tmp_path):
    damaged(tmp_path, placement, lambda weights: weights.update({norm: torch.ones(6)}))
    with pytest.raises(CheckpointError, match=re.escape(norm)):
        mixln.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


@pytest.mark.parametrize(("placement", "norm"), NORMS)
def test_missing_norm_is_named_by_the_model_without_a_head(placement, norm, tmp_path):
    damaged(tmp_path, placement, lambda weights: weights.pop(norm))
    with pytest.raises(CheckpointError, match=re.escape(norm.removeprefix("model."))):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "missing"),
        (lambda weights: weights.update({"lm_head.weight": torch.ones(64, 6)}), "misshapen"),
    ],
)
def test_head_that_is_lost_or_misshapen_is_named(edit, what, tmp_path):
    damaged(tmp_path, "pre", edit)
    with pytest.raises(CheckpointError, match=rf"weight lm_head\.weight is {what}"):
        mixln.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("written", "claimed"),
    [
        ("mix(0.5)", "pre"),
        ("pre", "mix(0.5)"),
        ("post", "pre"),
        ("sandwich", "peri"),
        ("peri", "sandwich"),
        ("hybrid", "hybrid*"),
        ("hybrid*", "hybrid"),
        ("pre", "qknorm+pre"),
        ("qkvnorm+pre", "qknorm+pre"),
        ("qknorm+res-post", "res-post"),
    ],
)
def test_config_with_another_placement_is_refused(written, claimed, tmp_path):
    other = mixln.placement(claimed, 3).to_json()
    reconfigured(tmp_path, written, lambda config: config.update(placement=other))
    with pytest.raises(CheckpointError, match=r"does not fit the placement in its config: weight model\.layers\.\d"):
        mixln.from_pretrained(tmp_path)


@pytest.mark.parametrize("layers", [2, 4])
def test_config_with_another_number_of_layers_is_refused(layers, tmp_path):
    other = mixln.placement("pre", layers).to_json()
    reconfigured(tmp_path, "pre", lambda config: config.update(placement=other))
    with pytest.raises(CheckpointError, match=r"model\.layers\.[23]\."):
        mixln.from_pretrained(tmp_path)


def test_config_without_a_placement_is_refused(tmp_path):
    reconfigured(tmp_path, "pre", lambda config: config.pop("placement"))
    with pytest.raises(PlacementError, match="has no placement; build it with mixln"):
        mixln.from_pretrained(tmp_path)


def test_config_with_an_unknown_entry_in_its_placement_is_refused_with_its_path(tmp_path):
    reconfigured(tmp_path, "pre", lambda config: config["placement"]["layers"][1].update(mlp={}))
    with pytest.raises(PlacementError, match=r"placement\.layers\[1\]\.mlp is unknown"):
        mixln.from_pretrained(tmp_path)


def test_stock_checkpoint_is_refused(tmp_path):
    LlamaForCausalLM(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="stock 'llama' checkpoint without a placement; load it with transformers'"
    ):
        mixln.from_pretrained(tmp_path)
    with pytest.raises(PlacementError, match="no placement"):
        PlacedLlamaForCausalLM.from_pretrained(tmp_path)


OPEN_WITHOUT_MIXLN = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM, LlamaModel

assert "mixln" not in sys.modules
for opener in (AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM, LlamaModel):
    try:
        model = opener.from_pretrained(sys.argv[1])
    except Exception as error:
        print(opener.__name__, "refuses")
    else:
        print(opener.__name__, "gives", type(model).__name__)
"""


def test_plain_transformers_refuses_a_placed_checkpoint(tmp_path):
    placed("mix(0.5)").save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_MIXLN, str(tmp_path)], capture_output=True, text=True, check=True
    )
    openers = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "LlamaForCausalLM", "LlamaModel")
    assert done.stdout.splitlines() == [f"{opener} refuses" for opener in openers]


def test_stock_class_refuses_a_placed_checkpoint_when_mixln_is_there_too(tmp_path):
    placed("mix(0.5)").save_pretrained(tmp_path)
    with pytest.raises(Exception, match="num_hidden_layers"):
        LlamaForCausalLM.from_pretrained(tmp_path)


def test_heads_that_do_not_divide_the_hidden_size_are_refused_with_both_numbers():
    config = config_of("olmo2")
    config.num_attention_heads = 5
    with pytest.raises(
        SettingsError, match="num_attention_heads must divide hidden_size, got 5 heads for hidden_size 32"
    ):
        mixln.from_config(config, placement="pre")


def test_key_value_heads_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(SettingsError):
        mixln.from_config(tiny_config(num_key_value_heads=3), placement="pre")


def test_placement_for_another_number_of_layers_is_refused():
    with pytest.raises(PlacementError, match="'pre' has 4 layers, the model has 3"):
        mixln.from_config(tiny_config(), placement=mixln.placement("pre", 4))
    with pytest.raises(PlacementError, match="have 4 layers, the model has 3"):
        mixln.from_config(tiny_config(), placement="post*2,pre*2")


@pytest.mark.parametrize("family", ["llama", "modernbert"])
@pytest.mark.parametrize(("layers", "rule"), [(0, "at least 1, got 0"), (10**12, "at most 1,024, got 1000000000000")])
def test_impossible_depth_is_refused_before_layers_are_made(family, layers, rule):
    config = shrunken(CONFIG_MAPPING[family])
    config.num_hidden_layers = layers
    with pytest.raises(PlacementError, match=f"layers must be {rule}"):
        mixln.placed_config(config, "stock")


def test_config_whose_depth_is_not_its_placements_is_refused():
    entries = mixln.placed_config(tiny_config(), "pre").to_dict()
    with pytest.raises(PlacementError, match="'pre' has 3 layers, but num_hidden_layers is 5"):
        PlacedLlamaConfig(**{**entries, "num_hidden_layers": 5})


@pytest.mark.parametrize(("placement", "groups"), [("group(5)", 5), ("group(64)", 64), ("post*1,group(7)+pre", 7)])
def test_groups_that_do_not_divide_the_hidden_size_are_refused(placement, groups):
    with pytest.raises(PlacementError, match=f"groups must divide the normalized size, got {groups} groups for 32"):
        mixln.from_config(tiny_config(), placement=placement)


def test_model_needs_a_placement():
    with pytest.raises(PlacementError, match=r"has no placement; build it with mixln\.from_config"):
        PlacedLlamaForCausalLM(PlacedLlamaConfig())


def test_saved_config_says_in_place_of_the_depth_how_to_open_it(tmp_path):
    placed("mix(0.5)").save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert "import mixln" in stored["num_hidden_layers"]
    assert stored["model_type"] == "placed_llama"
    assert len(stored["placement"]["layers"]) == 3
    assert not isinstance(mixln.from_pretrained(tmp_path).config.num_hidden_layers, str)
    with pytest.raises(Exception, match="num_hidden_layers"):
        LlamaConfig.from_pretrained(tmp_path)


def test_checkpoint_in_a_subfolder_opens(tmp_path):
    placed("pre").save_pretrained(tmp_path / "step-100")
    mixln.from_pretrained(tmp_path, subfolder="step-100")


def test_loading_leaves_the_global_generator_alone(tmp_path):
    placed("pre").save_pretrained(tmp_path)
    before = torch.get_rng_state()
    mixln.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
