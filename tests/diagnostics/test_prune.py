"""Pruned checkpoints: saved, loaded, and equal to the whole model that skips the layers."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

import mixln
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import ImageLoss, TokenLoss
from mixln.diagnostics.prune import prune, pruned_config
from mixln.diagnostics.stack import find_stack
from mixln.errors import SettingsError
from mixln.hosts import HOSTS
from mixln.hosts.configs import text_part
from mixln.placement import Placement
from tests import tiny
from tests.diagnostics import zoo
from tests.hosts import families

LOADED_BY = {"bert": AutoModelForMaskedLM, "vit": AutoModelForImageClassification}


def measure(family):
    if family == "vit":
        return ImageLoss()
    return TokenLoss(shift=0 if family == "bert" else 1)


@pytest.mark.long
@pytest.mark.parametrize(
    "family", [*zoo.PLACED, *zoo.KEEPING, "llama", "olmoe", "gemma2", "gemma3_text", "gpt2", "bert", "vit"]
)
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 3), (1, 2)])
def test_reloads_to_the_loss_of_the_drop(family, block, tmp_path):
    model, batches = zoo.model(family), zoo.batches(family)
    stack = find_stack(model)
    before = copy.deepcopy(model.state_dict())
    dropped = performance_drop(stack, batches, measure(family), blocks=[block]).blocks[0]
    prune(stack, range(block[0], block[1] + 1)).save_pretrained(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    loaded = LOADED_BY.get(family, AutoModelForCausalLM).from_pretrained(tmp_path).eval()
    smaller = find_stack(loaded)
    assert len(smaller) == len(stack) - (block[1] - block[0] + 1)
    assert performance_drop(smaller, batches, measure(family), zeroed=False).original == pytest.approx(
        dropped.value, abs=1e-6
    )


def test_the_others_keep_their_records_and_generate_with_a_cache(tmp_path):
    model = tiny.placed("mix(0.5)", num_hidden_layers=4)
    records = Placement.from_json(model.config.placement).layers
    smaller = prune(find_stack(model), {1, 3})
    found = Placement.from_json(smaller.config.placement)
    assert found.layers == (records[1], records[3])
    assert found.name == "mix(0.5) without layers 1, 3"
    ids = tiny.tokens(1, 5)
    whole, cached = (smaller.generate(ids, max_new_tokens=6, do_sample=False, use_cache=use) for use in (False, True))
    assert torch.equal(whole, cached)


def test_the_layers_keep_the_attention_of_their_config():
    """Gemma 3's layers are local and global ones in turn: without the second, a global one, the third is still local."""
    model = zoo.model("gemma3_text")
    smaller = prune(find_stack(model), {2})
    assert smaller.config.layer_types == ["sliding_attention", "sliding_attention", "full_attention"]


def test_an_expert_layer_stays_one():
    """Of four layers the second is dense, by its number in the config; without the first, the first is."""
    sizes = {**zoo.SIZES, **zoo.EXPERTS, "head_dim": 8, "num_hidden_layers": 4, "mlp_only_layers": [1]}
    kind = __import__("transformers").Qwen3MoeForCausalLM
    torch.manual_seed(0)
    smaller = prune(find_stack(kind(kind.config_class(**sizes)).eval()), {1})
    assert smaller.config.mlp_only_layers == [0]
    assert [hasattr(layer.mlp, "experts") for layer in smaller.model.layers] == [False, True, True]


def test_a_family_with_roles_by_number_is_refused():
    """Every second layer has experts; without one layer, the numbers would give the others the wrong role."""
    sizes = {**zoo.SIZES, **zoo.EXPERTS, "head_dim": 8, "num_hidden_layers": 4, "decoder_sparse_step": 2}
    kind = __import__("transformers").Qwen3MoeForCausalLM
    with pytest.raises(SettingsError, match="layers cannot be removed from this 'qwen3_moe' checkpoint"):
        prune(find_stack(kind(kind.config_class(**sizes)).eval()), {1})


SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
TEXT = {**SMALL, "vocab_size": 60}
IMAGES = {**SMALL, "image_size": 8, "patch_size": 4}
FEW_HEADS = {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
PER_LAYER = [
    ("Dinov2ForImageClassification", {**IMAGES, "out_indices": [1, 3, 4]}, {"out_indices": [1, 2, 3]}),
    ("Dinov2Model", IMAGES, {"out_features": ["stage3"]}),
    ("Dinov2WithRegistersModel", IMAGES, {"out_features": ["stage3"]}),
    ("DINOv3ViTModel", IMAGES, {"out_features": ["stage3"]}),
    ("BeitForImageClassification", {**IMAGES, "out_indices": [2]}, {"out_indices": [3]}),
    ("LongformerForMaskedLM", {**TEXT, "attention_window": [4, 8, 4, 8]}, {"attention_window": [4, 4, 8]}),
    ("XLNetLMHeadModel", {"vocab_size": 60, "d_model": 16, "n_layer": 4, "n_head": 2, "d_inner": 24}, {"n_layer": 3}),
    (
        "GPTNeoForCausalLM",
        {**TEXT, "attention_types": [[["global", "local"], 2]]},
        {"attention_layers": ["global", "global", "local"]},
    ),
    ("SmolLM3ForCausalLM", {**TEXT, **FEW_HEADS, "no_rope_layers": [1, 0, 0, 1]}, {"no_rope_layers": [1, 0, 1]}),
    (
        "LagunaForCausalLM",
        {
            **TEXT,
            **FEW_HEADS,
            "num_attention_heads_per_layer": [2, 4, 4, 2],
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        {"num_attention_heads_per_layer": [2, 4, 2]},
    ),
]


@pytest.mark.parametrize(("name", "config", "entries"), PER_LAYER, ids=[name for name, *_ in PER_LAYER])
def test_the_entries_of_each_layer_go_with_it(name, config, entries, tmp_path):
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    stack = find_stack(kind(kind.config_class(**config)).eval())
    smaller = prune(stack, {2})
    assert {entry: getattr(smaller.config, entry) for entry in entries} == entries
    smaller.save_pretrained(tmp_path)
    again = find_stack(kind.from_pretrained(tmp_path).eval())
    with torch.no_grad(), stack.skipping([1]):
        torch.testing.assert_close(again.run(stack.probe), stack.run(stack.probe), rtol=1e-4, atol=1e-4)


def test_numbers_of_layers_are_counted_anew():
    config = transformers.Llama4TextConfig(num_hidden_layers=6, moe_layers=[1, 3, 5])
    assert pruned_config(config, [0, 1, 3, 4]).moe_layers == [1, 2]


def test_a_list_that_only_happens_to_be_as_long_stays():
    config = transformers.TapasConfig(num_hidden_layers=7)
    assert list(pruned_config(config, [0, 1, 2]).type_vocab_sizes) == list(config.type_vocab_sizes)
    config = transformers.LlamaConfig(num_hidden_layers=3, eos_token_id=[1, 2, 3])
    assert pruned_config(config, [0, 2]).eos_token_id == [1, 2, 3]


GEMMA3N = {"intermediate_size": [24] * 4, "activation_sparsity_pattern": [0.0] * 4, "num_kv_shared_layers": 0}
NOT_CUT = [
    (
        "Gemma3nForCausalLM",
        {**TEXT, **FEW_HEADS, **GEMMA3N, "hidden_size_per_layer_input": 8},
        "layers cannot be removed from this 'gemma3n_text' checkpoint",
    ),
    ("FunnelModel", {"vocab_size": 60, "d_model": 16, "n_head": 2, "d_head": 8, "block_sizes": [2, 2]}, "layer-list"),
    (
        "ReformerModel",
        {"vocab_size": 60, "axial_pos_shape": [4, 8], "axial_pos_embds_dim": [64, 192]},
        "return hidden_states, ",
    ),
]


@pytest.mark.parametrize(("name", "config", "said"), NOT_CUT, ids=[name for name, *_ in NOT_CUT])
def test_what_cannot_be_cut_is_said_in_one_line(name, config, said):
    """Gemma 3n keeps one tensor for all layers, Funnel has no one list of them, Reformer two streams."""
    kind = getattr(transformers, name)
    with pytest.raises(SettingsError, match=said):
        prune(find_stack(kind(kind.config_class(**config)).eval()), {2})


def test_the_config_of_every_family_is_cut_or_refused():
    """No list of one entry a layer is left as long as it was; those that stay are no lists of layers."""
    cut = 0
    for kind in CONFIG_MAPPING.values():
        number = kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        try:
            config = kind(**{number: 7})
            assert config.num_hidden_layers == 7
            smaller = pruned_config(config, [0, 3, 4, 5, 6])
        except Exception:  # a number of layers that cannot be chosen: prune says so in one line
            continue
        # A multimodal model is cut at the config within its config: tests/diagnostics/test_multimodal.py.
        if config.is_encoder_decoder or text_part(config) is not config:
            continue
        assert smaller.num_hidden_layers == 5
        before, after = config.to_dict(), smaller.to_dict()
        lists = {name for name, value in before.items() if isinstance(value, list | tuple) and len(value) == 7}
        assert {name for name in lists if len(after[name] or ()) == 7} <= NO_LAYERS, kind
        cut += 1
    assert cut > 250


NO_LAYERS = {
    "conv_dim", "conv_stride", "conv_kernel", "type_vocab_sizes", "kernel_sizes", "in_channels", "out_channels", "strides",
    "num_block_repeats", "expand_ratios", "depths", "neck_hidden_sizes",
}  # fmt: skip
"""Lists of seven entries that say nothing of layers."""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({0}, "within 1 to 3, got 0"),
        ({4}, "within 1 to 3, got 4"),
        ({1, 2, 3}, "at least one of the model's 3"),
        (set(), "at least one layer to remove"),
    ],
)
def test_layers_that_cannot_go_are_refused(layers, message):
    with pytest.raises(SettingsError, match=message):
        prune(find_stack(tiny.placed("pre")), layers)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mix(0.5)", "bert"])
def test_the_number_format_is_kept(family):
    model = zoo.model(family)
    model = type(model)._from_config(model.config, dtype=torch.bfloat16).eval()
    smaller = prune(find_stack(model), {2})
    assert smaller.dtype == torch.bfloat16
    assert len(find_stack(smaller)) == 2


@pytest.mark.parametrize("host", HOSTS)
def test_placed_models_of_every_family_are_pruned_and_saved(host, tmp_path):
    """Layers keep what their number gave them: a sliding window, experts, a norm on the embeddings."""
    torch.manual_seed(0)
    model = mixln.from_config(families.config_of(host), placement="post*1,hybrid").eval()
    stack, inputs = find_stack(model), families.inputs_of(host)
    smaller = prune(stack, {2})
    smaller.save_pretrained(tmp_path)
    again = mixln.from_pretrained(tmp_path)
    with torch.no_grad(), stack.skipping([1]):
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-5)
