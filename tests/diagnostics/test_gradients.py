"""Gradients by sublayer against plain backward passes, and gates against finite differences."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import transformers
from torch import nn

import mixln
from mixln.diagnostics.diagnose import initial_gradients
from mixln.diagnostics.gradients import gradients
from mixln.diagnostics.measures import ImageLoss, TokenLoss
from mixln.diagnostics.stack import find_stack
from mixln.errors import DataError
from tests import tiny
from tests.diagnostics import zoo

FAMILIES = ("pre", "post", "hybrid*", "peri", "olmoe", "bert", "gemma2", "gpt_neox", "vit")


def measure(family):
    if family == "vit":
        return ImageLoss()
    return TokenLoss(shift=0 if family == "bert" else 1)


def mean_loss(model, family, batches):
    """Differentiable mean loss over all predicted tokens or images, by the model's own head."""
    stack, kind = find_stack(model), measure(family)
    return sum(kind.run(stack, batch).sum() for batch in batches) / sum(kind.weights(batch).sum() for batch in batches)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_those_of_a_backward_pass(family):
    model, batches = zoo.model(family), zoo.batches(family)
    stack = find_stack(model)
    found = gradients(stack, batches, measure(family))
    model.zero_grad()
    loss = mean_loss(model, family, batches)
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-6)
    for index, layer in enumerate(stack.layers):
        both = found.norm.attention[index] ** 2 + found.norm.feed_forward[index] ** 2
        branches = {name: p for name, p in layer.named_parameters() if not name.startswith("stream_in.")}
        expected = sum(p.grad.square().sum().item() for p in branches.values() if p.grad is not None)
        assert both == pytest.approx(expected, rel=1e-4)
    attention = {"bert": "attention", "vit": "attention", "gpt_neox": "attention"}.get(family, "self_attn")
    norms = {
        "bert": [],
        "vit": ["layernorm_before"],
        "gpt_neox": ["input_layernorm"],
        "olmoe": ["input_layernorm"],
        "gemma2": ["input_layernorm", "post_attention_layernorm"],
    }
    held = [attention, *norms.get(family, ["attention_residual"])]
    for index, layer in enumerate(stack.layers):
        total = sum(p.grad.square().sum().item() for name in held for p in layer.get_submodule(name).parameters())
        assert found.norm.attention[index] ** 2 == pytest.approx(total, rel=1e-4)


class Gated(nn.Module):
    """A module whose output is multiplied by a number."""

    def __init__(self, module: nn.Module, gate: float) -> None:
        super().__init__()
        self.module, self.gate = module, gate

    def forward(self, *args, **kwargs):
        output = self.module(*args, **kwargs)
        return (output[0] * self.gate, *output[1:]) if isinstance(output, tuple) else output * self.gate

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


@pytest.mark.parametrize("family", FAMILIES)
def test_gates_are_finite_differences_of_the_loss(family):
    model, batches = zoo.model(family).double(), zoo.batches(family, 1)
    if family == "olmoe":
        model.set_experts_implementation("eager")  # the grouped product has no float64
    if family == "vit":
        batches = [{**batch, "pixel_values": batch["pixel_values"].double()} for batch in batches]
    stack = find_stack(model)
    found = gradients(stack, batches, measure(family))
    step = 1e-3
    for index, branches in enumerate(stack.branches):
        for branch, gate in zip(branches, (found.gate.attention[index], found.gate.feed_forward[index]), strict=True):
            losses = []
            for value in (1 + step, 1 - step):
                changed = copy.deepcopy(model)
                layer = find_stack(changed).layers[index]
                layer.set_submodule(branch.output, Gated(layer.get_submodule(branch.output), value))
                losses.append(mean_loss(changed, family, batches).item())
            # The loss itself is taken in float32.
            assert gate == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-3, rel=2e-2)


def test_nothing_of_the_model_is_left_changed():
    model, batches = zoo.model("pre").train(), zoo.batches("pre")
    frozen = model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    gradients(find_stack(model), batches, TokenLoss(shift=1))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not frozen.requires_grad
    assert model.lm_head.weight.requires_grad
    assert all(not module._forward_hooks for module in model.modules())


def test_the_batches_do_not_matter():
    stack, (batch, _) = find_stack(zoo.model("mix(0.5)")), zoo.batches("mix(0.5)")
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
    whole, parts = (gradients(stack, each, TokenLoss(shift=1)) for each in ([batch], rows))
    assert parts.norm.attention == pytest.approx(whole.norm.attention, rel=1e-4)
    assert parts.gate.feed_forward == pytest.approx(whole.gate.feed_forward, rel=1e-3, abs=1e-6)
    assert parts.tokens == whole.tokens


@pytest.mark.parametrize("family", ["post", "llama", "bert"])
def test_weights_drawn_anew_depend_on_the_seed_alone(family):
    model, batches = zoo.model(family), zoo.batches(family)
    before = copy.deepcopy(model.state_dict())
    stack = find_stack(model)
    first = initial_gradients(stack, batches, measure(family), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    torch.manual_seed(99)
    assert initial_gradients(stack, batches, measure(family), seed=3) == first
    assert initial_gradients(stack, batches, measure(family), seed=4) != first
    model.load_state_dict(before)
    assert gradients(stack, batches, measure(family)).norm != first.norm


def test_nothing_to_predict_is_refused():
    batch = zoo.batches("pre")[0]
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(DataError, match="at least one predicted token"):
        gradients(find_stack(zoo.model("pre")), [batch], TokenLoss(shift=1))


def test_a_sequence_that_begins_with_padding_has_finite_gradients_when_drawn_anew():
    """Its embedding is stored as zero, and a norm of zeros has a gradient of 1/√ε a layer."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **{**zoo.SIZES, "num_hidden_layers": 16, "initializer_range": 0.02, "rms_norm_eps": 1e-12}
    )
    stack = find_stack(transformers.LlamaForCausalLM(config))
    ids = torch.tensor([[0, 5, 6, 7, 8]])
    batch = {"input_ids": ids, "labels": ids}
    assert math.isfinite(max(initial_gradients(stack, [batch], TokenLoss(shift=1), seed=0).norm.attention))
    assert not math.isfinite(max(gradients(stack, [batch], TokenLoss(shift=1)).norm.attention))


def test_gradients_of_growing_branches_are_drawn_anew_at_the_step_of_the_model():
    model = tiny.placed("prores+pre")
    mixln.set_step(model, 10**6)
    ids = tiny.tokens()
    first = initial_gradients(find_stack(model), [{"input_ids": ids, "labels": ids}], TokenLoss(shift=1), seed=0)
    assert min(*first.norm.attention, *first.norm.feed_forward) > 0
