"""The residual stream by depth, and the gains of norms, on known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixln.diagnostics.diagnose import fitting
from mixln.diagnostics.residual import norm_gains, residual_stream, residual_variance
from mixln.diagnostics.stack import find_stack
from tests import tiny
from tests.diagnostics import zoo


def test_a_toy_by_hand():
    """Three times as long is nine times the variance; without branches only the layers' ends are known."""
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    found = residual_stream(find_stack(zoo.toy(zoo.Function(lambda x: 3 * x), nn.Identity())), [{"inputs_embeds": x}])
    variance, norm = x.var(dim=-1, correction=0).mean().item(), x.norm(dim=-1).mean().item()
    assert (found.entry_variance, found.entry_norm) == pytest.approx((variance, norm), rel=1e-6)
    assert found.variance.feed_forward == pytest.approx((9 * variance,) * 2, rel=1e-6)
    assert found.norm.feed_forward == pytest.approx((3 * norm,) * 2, rel=1e-6)
    assert found.variance.attention == found.share.attention == found.share.feed_forward == ()


@pytest.mark.parametrize("placement", ["pre", "post", "hybrid*", "admin", "gpas+mix(0.5)", "hybrid(post-pre)"])
def test_the_same_variance_as_during_training(placement):
    model, ids = tiny.placed(placement), tiny.tokens()
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    recorded = residual_variance(model, {"input_ids": ids}, step=0)
    assert found.variance.attention == pytest.approx(recorded.attention, rel=1e-5)
    assert found.variance.feed_forward == pytest.approx(recorded.feed_forward, rel=1e-5)


@pytest.mark.parametrize("family", ["pre", "bert", "olmoe", "vit"])
def test_padding_and_batches_do_not_matter(family):
    stack, (batch, _) = find_stack(zoo.model(family)), zoo.batches(family)
    whole = residual_stream(stack, [batch])
    rows = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(3)]
    if family != "vit":
        rows = [
            {name: value[:, :length] for name, value in row.items()}
            for row, length in zip(rows, (9, 7, 4), strict=True)
        ]
    parts = residual_stream(stack, rows)
    for one, other in ((whole.variance, parts.variance), (whole.norm, parts.norm), (whole.share, parts.share)):
        assert other.attention == pytest.approx(one.attention, rel=1e-4)
        assert other.feed_forward == pytest.approx(one.feed_forward, rel=1e-4)


@torch.no_grad()
def test_the_share_of_a_branch():
    """A feed-forward that gives three times its stream has three quarters of the sum, one that gives nothing has none."""
    model = tiny.placed("pre")
    layers = model.model.layers
    layers[0].mlp = zoo.Function(lambda x: 0 * x)
    seen = {}
    layers[1].feed_forward_residual.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    layers[1].mlp = zoo.Function(lambda x: 3 * seen["x"])
    share = residual_stream(find_stack(model), [{"input_ids": tiny.tokens()}]).share
    assert share.feed_forward[:2] == pytest.approx((0, 0.75), abs=1e-6)
    assert 0 < share.feed_forward[2] < 1


@torch.no_grad()
def test_the_share_counts_the_scale_of_the_skip():
    """DeepNorm sums α x + f(x): a branch that gives x has 1 / (1 + α) of it."""
    model = tiny.placed("deepnorm")
    seen = {}
    residual = model.model.layers[0].feed_forward_residual
    residual.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    model.model.layers[0].mlp = zoo.Function(lambda x: seen["x"])
    share = residual_stream(find_stack(model), [{"input_ids": tiny.tokens()}]).share
    assert share.feed_forward[0] == pytest.approx(1 / (1 + residual.skip_scale), rel=1e-5)


def _is_gain(weight: object) -> bool:
    return isinstance(weight, nn.Parameter) and weight.ndim == 1


@pytest.mark.parametrize("family", ["llama", "gemma", "bert", "gpt2", "qkvnorm+group(4)+mix(0.5)", "vit"])
@torch.no_grad()
def test_gains_are_measured_whatever_way_they_are_stored(family):
    """LayerNorm's bias cancels, and Gemma stores its gain minus one."""
    model = zoo.model(family)
    stored = 1.0 if family == "gemma" else 0.0
    expected: dict[str, list] = {}
    for index, layer in enumerate(find_stack(model).layers):
        for name, module in layer.named_modules():
            if _is_gain(getattr(module, "weight", None)) and "norm" in type(module).__name__.lower():
                expected.setdefault(name, [None] * 3)[index] = (module.weight + stored).abs().mean().item()
    found = norm_gains(find_stack(model))
    assert found.keys() == expected.keys()
    for name, gains in expected.items():
        assert found[name] == tuple(gain if gain is None else pytest.approx(gain, rel=1e-3) for gain in gains)


def test_the_stream_after_parallel_branches_attention_has_it_added():
    stack, batch = find_stack(zoo.model("gpt_neox")), zoo.batches("gpt_neox", 1)[0]
    assert residual_stream(stack, [batch]).variance.attention[0] != pytest.approx(
        residual_stream(stack, [batch]).entry_variance, rel=1e-2
    )


@pytest.mark.parametrize("memory", [1, 100_000, 10**9])
def test_batches_are_cut_to_fit(memory):
    """One sequence's states and branches take 5 · 3 · 9 · 32 · 4 = 17,280 bytes."""
    stack, (batch, _) = find_stack(zoo.model("pre")), zoo.batches("pre")
    parts = list(fitting(stack, [batch], memory))
    assert [len(part["input_ids"]) for part in parts] == ([1, 1, 1] if memory == 1 else [3])
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), batch["input_ids"])


@torch.no_grad()
def test_the_share_of_a_branch_beside_the_input_of_the_layer():
    """B2T adds the layer's input to the last sum; it belongs to what the branch is added to."""
    model, ids = tiny.placed("b2t"), tiny.tokens()
    found = residual_stream(find_stack(model), [{"input_ids": ids}])
    layer, seen = model.model.layers[1], {}
    layer.register_forward_pre_hook(lambda module, inputs, kwargs: seen.update(x=inputs[0]), with_kwargs=True)
    layer.mlp.register_forward_hook(lambda module, inputs, output: seen.update(y=inputs[0], f=output))
    model(ids)
    skip, branch = (seen["x"] + seen["y"]).norm(dim=-1), seen["f"].norm(dim=-1)
    assert found.share.feed_forward[1] == pytest.approx((branch / (skip + branch)).mean().item(), rel=1e-5)
