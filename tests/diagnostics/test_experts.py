"""Use of the experts: routers whose choice is known, and counts equal to those of the routers' own outputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import mixln
from mixln.diagnostics.experts import expert_use
from mixln.diagnostics.stack import find_stack
from mixln.hosts.shrunken import shrunken
from tests.diagnostics import zoo

ROUTERS = {"olmoe": "mlp.gate", "mixtral": "mlp.gate", "qwen2_moe": "mlp.gate", "qwen3_moe": "mlp.gate"}
NORMALISED = {"mixtral"}


@torch.no_grad()
@pytest.mark.parametrize("family", ROUTERS)
def test_two_experts_that_are_always_chosen(family):
    """Logits 0, 1, 0, 2 for every token: the router reads 32 ones, and its rows are constant."""
    model = zoo.model(family)
    stack = find_stack(model)
    for layer in stack.layers:
        gate = layer.get_submodule(ROUTERS[family])
        gate.weight.copy_(torch.tensor([0.0, 1.0, 0.0, 2.0]).unsqueeze(1).expand_as(gate.weight) / 32)
        gate.register_forward_pre_hook(lambda module, inputs: (torch.ones_like(inputs[0]),))
    found = expert_use(stack, zoo.batches(family))
    assert found is not None
    assert found.layers == (1, 2, 3)
    assert found.chosen == ((0, 1, 0, 1),) * 3
    assert (found.per_token, found.tokens) == (2, 2 * (9 + 7 + 4))
    e = math.e
    total = e + e**2 + (0 if family in NORMALISED else 2)
    for row in found.weight:
        assert row[0] is row[2] is None
        assert row[1] == pytest.approx(e / total, rel=1e-5)
        assert row[3] == pytest.approx(e**2 / total, rel=1e-5)


@pytest.mark.parametrize("family", ROUTERS)
def test_counts_are_those_of_the_routers_without_padding(family):
    model, batches = zoo.model(family), zoo.batches(family)
    found = expert_use(find_stack(model), batches)
    assert found is not None
    logits = [model(**batch, output_router_logits=True).router_logits for batch in batches]
    for layer in range(3):
        counts = torch.zeros(4, dtype=torch.float64)
        for batch, each in zip(batches, logits, strict=True):
            top = each[layer].topk(2, dim=-1).indices.view(3, 9, 2)[batch["attention_mask"].bool()]
            counts += torch.bincount(top.flatten(), minlength=4)
        assert found.chosen[layer] == pytest.approx((counts / found.tokens).tolist(), abs=1e-12)
        assert sum(found.chosen[layer]) == pytest.approx(2)


def test_a_placed_model_with_experts():
    torch.manual_seed(0)
    model = mixln.from_config(zoo.model("olmoe").config, placement="mix(0.5)").eval()
    found = expert_use(find_stack(model), zoo.batches("olmoe"))
    assert found is not None
    assert [len(row) for row in found.chosen] == [4, 4, 4]


@pytest.mark.parametrize(
    "family", ["gpt_oss", "deepseek_v3", "glm4_moe", "granitemoe", "jamba", "ernie4_5_moe", "phimoe"]
)
def test_routers_of_other_families_are_read(family):
    """Also where the first layer has no experts, or only every second one has."""
    torch.manual_seed(0)
    config = shrunken(CONFIG_MAPPING[family])
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(1, 30, (2, 8))
    found = expert_use(find_stack(model), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    assert found is not None
    assert found.layers
    assert found.tokens == 16
    for row in found.chosen:
        assert sum(row) == pytest.approx(config.num_experts_per_tok)


def test_only_some_layers_have_experts():
    torch.manual_seed(0)
    config = zoo.model("qwen3_moe").config
    config.mlp_only_layers = [1]
    found = expert_use(find_stack(type(zoo.model("qwen3_moe"))(config).eval()), zoo.batches("qwen3_moe"))
    assert found is not None
    assert found.layers == (1, 3)


@pytest.mark.parametrize("family", ["llama", "bert", "gpt2", "vit"])
def test_a_model_without_experts(family):
    assert expert_use(find_stack(zoo.model(family)), zoo.batches(family)) is None


def test_every_family_with_experts_in_the_zoo_is_read():
    with_experts = {
        family for family, (_, sizes) in zoo.MODELS.items() if {"num_experts", "num_local_experts"} & set(sizes)
    }
    assert with_experts == set(ROUTERS)
