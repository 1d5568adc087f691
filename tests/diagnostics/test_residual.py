"""The variance of the residual stream against a pass through the layers by hand, and on known answers."""

from __future__ import annotations

import pytest
import torch

from mixln.diagnostics.residual import residual_stream, residual_variance
from mixln.diagnostics.stack import find_stack
from mixln.nn.residual import placed_layers
from tests import tiny
from tests.diagnostics import zoo


@torch.no_grad()
def by_hand(model, ids) -> dict[str, list[float]]:
    """Each layer's two equations written out, with the host's own attention and feed-forward."""
    base = model.model
    stream = base.embed_tokens(ids)
    rotary = base.rotary_emb(stream, torch.arange(ids.shape[1])[None])
    found: dict[str, list[float]] = {"attention": [], "feed_forward": []}
    for layer in base.layers:
        slots = layer.attention_residual
        branch = stream if slots.branch_in is None else slots.branch_in(stream)
        stream = stream + layer.self_attn(branch, position_embeddings=rotary, attention_mask=None)[0]
        stream = stream if slots.stream_out is None else slots.stream_out(stream)
        found["attention"].append(variance(stream))
        slots = layer.feed_forward_residual
        branch = stream if slots.branch_in is None else slots.branch_in(stream)
        stream = stream + layer.mlp(branch)
        stream = stream if slots.stream_out is None else slots.stream_out(stream)
        found["feed_forward"].append(variance(stream))
    return found


def variance(stream_BTD) -> float:
    """Mean over tokens of the mean squared distance from the token's own mean over features."""
    rows = stream_BTD.double().flatten(0, 1).tolist()
    each = [sum((x - sum(row) / len(row)) ** 2 for x in row) / len(row) for row in rows]
    return sum(each) / len(each)


@pytest.mark.parametrize("placement", ["pre", "post", "mix(0.5)", "hybrid*"])
def test_variance_equals_a_pass_by_hand(placement):
    model, ids = tiny.placed(placement), tiny.tokens(batch=3, length=9)
    found = residual_variance(model, {"input_ids": ids}, step=17)
    expected = by_hand(model, ids)
    assert found.step == 17
    assert found.attention == pytest.approx(expected["attention"], rel=1e-5)
    assert found.feed_forward == pytest.approx(expected["feed_forward"], rel=1e-5)


@torch.no_grad()
def test_branches_that_add_nothing_leave_the_variance_of_the_embedding():
    model, ids = tiny.placed("pre"), tiny.tokens()
    for layer in placed_layers(model):
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    found = residual_variance(model, {"input_ids": ids}, step=0)
    expected = pytest.approx([variance(model.model.embed_tokens(ids))] * 3, rel=1e-6)
    assert list(found.attention) == list(found.feed_forward) == expected


@torch.no_grad()
def test_a_constant_added_to_every_feature_changes_nothing():
    """RMSNorm does not take the mean away, so only the definition of the variance does."""
    model, ids = tiny.placed("pre"), tiny.tokens()
    for layer in placed_layers(model):
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    before = residual_variance(model, {"input_ids": ids}, step=0)
    model.model.embed_tokens.weight += 3.0
    assert residual_variance(model, {"input_ids": ids}, step=0).attention == pytest.approx(before.attention, rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model, ids = tiny.placed("mix(0.5)").train(training), tiny.tokens()
    model.config.attention_dropout = 0.5
    for layer in placed_layers(model):
        layer.self_attn.attention_dropout = 0.5
    first, second = (residual_variance(model, {"input_ids": ids}, step=0) for _ in range(2))
    assert first == second
    assert model.training is training
    assert all(not module._forward_hooks for layer in placed_layers(model) for module in layer.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_placed_layers_come_in_order():
    model = tiny.placed("post*1,pre*2")
    assert [layer.record for layer in placed_layers(model)] == [layer.record for layer in model.model.layers]
    assert len(list(placed_layers(model))) == 3


@pytest.mark.parametrize("placement", [*zoo.KEEPING, "attnres", "attnres(3)", "attnres(1,normed)"])
@torch.no_grad()
def test_of_several_streams_what_the_end_of_the_model_would_read_is_measured(placement):
    model, ids, last = tiny.placed(placement), tiny.tokens(), []
    profile = residual_variance(model, {"input_ids": ids}, step=0)
    model.model.norm.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0]))
    states = model.model(ids, output_hidden_states=True).hidden_states
    assert profile.feed_forward == pytest.approx([variance(state) for state in (*states[1:-1], *last)], rel=1e-5)


@pytest.mark.parametrize("placement", ["dlcl", "denseformer"])
@torch.no_grad()
def test_where_only_layers_add_up_the_output_of_each_is_measured(placement):
    model, ids, seen = tiny.placed(placement), tiny.tokens(), []
    for layer in placed_layers(model):
        layer.feed_forward_residual.register_forward_hook(lambda module, inputs, output: seen.append(variance(output)))
    assert residual_variance(model, {"input_ids": ids}, step=0).feed_forward == pytest.approx(seen[:3], rel=1e-5)


@torch.no_grad()
def test_the_second_skip_of_spannorm_is_the_layers_input():
    model, ids = tiny.placed("span"), tiny.tokens(batch=2, length=5)
    share = residual_stream(find_stack(model), [{"input_ids": ids}]).share.feed_forward
    seen = {}
    layer = model.model.layers[1]
    layer.register_forward_pre_hook(lambda module, args, kwargs: seen.update(x=args[0]), with_kwargs=True)
    layer.mlp.register_forward_hook(lambda module, args, output: seen.update(f=output))
    model(ids)
    skip, branch = seen["x"].norm(dim=-1), seen["f"].norm(dim=-1)
    assert share[1] == pytest.approx((branch / (skip + branch)).mean().item(), rel=1e-5)
