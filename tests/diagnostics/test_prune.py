"""Pruned checkpoints: saved, loaded, and equal to the whole model that skips the layers."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

import mixln
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import ImageLoss, TokenLoss
from mixln.diagnostics.prune import prune
from mixln.diagnostics.stack import find_stack
from mixln.errors import SettingsError
from mixln.hosts import HOSTS
from mixln.placement import Placement
from tests import tiny
from tests.diagnostics import zoo
from tests.hosts import families

LOADED_BY = {"bert": AutoModelForMaskedLM, "vit": AutoModelForImageClassification}


def measure(family):
    if family == "vit":
        return ImageLoss()
    return TokenLoss(shift=0 if family == "bert" else 1)


@pytest.mark.parametrize("family", [*zoo.PLACED, "llama", "olmoe", "gemma2", "gemma3_text", "gpt2", "bert", "vit"])
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
    with pytest.raises(SettingsError, match="where the config gives a layer its role by its number"):
        prune(find_stack(kind(kind.config_class(**sizes)).eval()), {1})


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
