"""The residual algebra: y = stream_out( skip_scale · x + branch_out( f( branch_scale · branch_in(x) ) ) )."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixln.nn.residual import BalanceGate, GpasGate, PlacedLayer, Residual
from mixln.placement import Balance, Gain, Layer, Norm, Placement, Sublayer

SLOTS = ("branch_in", "branch_out", "stream_out")
X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def norm(record: Norm | None) -> nn.Module | None:
    return None if record is None else nn.RMSNorm(4, eps=1e-6)


def function(x: Tensor) -> Tensor:
    return torch.tanh(x) + 0.3


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 1.0), (1.0, 1.7), (0.5, 1.7)])
def test_every_combination_of_norms_and_scales_follows_the_formula(present, scales):
    branch_in, branch_out, stream_out = present
    branch_scale, skip_scale = scales
    slots = {slot: Norm() if there else None for slot, there in zip(SLOTS, present, strict=True)}
    residual = Residual(Sublayer(**slots, branch_scale=branch_scale, skip_scale=skip_scale), norm, 4)
    branch = function(branch_scale * (rms(X) if branch_in else X))
    y = skip_scale * X + (rms(branch) if branch_out else branch)
    torch.testing.assert_close(residual(X, function), rms(y) if stream_out else y)
    assert len(list(residual.parameters())) == sum(present)


def test_only_the_first_entry_of_a_tuple_is_the_branch():
    residual = Residual(Sublayer(), norm, 4)
    assert torch.equal(residual(X, lambda x: (2 * x, "weights")), X + 2 * X)


def test_further_arguments_reach_the_function():
    residual = Residual(Sublayer(), norm, 4)
    assert torch.equal(residual(X, lambda x, by, *, plus: by * x + plus, 3.0, plus=1.0), X + (3 * X + 1))


def test_scales_are_python_numbers_that_no_device_move_can_lose():
    residual = Residual(Sublayer(branch_scale=0.5, skip_scale=1.7), norm, 4).to("meta").to_empty(device="cpu")
    assert (residual.branch_scale, residual.skip_scale) == (0.5, 1.7)
    assert list(residual.buffers()) == []


def test_scales_keep_the_dtype_of_the_stream():
    residual = Residual(Sublayer(branch_scale=0.5, skip_scale=1.7), norm, 4)
    assert residual(X.bfloat16(), function).dtype == torch.bfloat16


class Stock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ff, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.kind = "full"
        self.register_buffer("scale", torch.tensor(3.0))


ATTEND = SimpleNamespace(function=lambda layer, x, *args, **kwargs: layer.attn(x))
FEED = SimpleNamespace(function=lambda layer, x, *args, **kwargs: layer.ff(x))


def layer(record: Layer, embedding_norm: Norm | None = None, index: int = 0, **settings: Any) -> PlacedLayer:
    return PlacedLayer(
        record,
        stock=Stock(),
        replaced=["norm"],
        modules=(("attn",), ("ff",)),
        branches=(ATTEND, FEED),
        **settings,
        norm=norm,
        size=4,
        index=index,
        placement=Placement(name="", layers=(record, record), embedding_norm=embedding_norm),
    )


def test_layer_is_attention_then_feed_forward():
    placed = layer(Layer(attention=Sublayer(branch_in=Norm()), feed_forward=Sublayer(stream_out=Norm())))
    y = X + placed.attn(rms(X))
    torch.testing.assert_close(placed(X), rms(y + placed.ff(y)))
    assert placed.functions == ((placed.attn,), (placed.ff,))


def test_norm_on_the_layers_input_is_in_the_stream_itself():
    placed = layer(Layer(), embedding_norm=Norm())
    x = rms(X)
    y = x + placed.attn(x)
    torch.testing.assert_close(placed(X), y + placed.ff(y))


def test_absent_norms_leave_no_name_behind():
    assert {name.rpartition(".")[0] for name in layer(Layer()).state_dict()} == {"attn", "ff", ""}


def test_what_the_hosts_code_may_use_moves_from_its_layer():
    placed = layer(Layer())
    assert placed.kind == "full"
    assert placed.scale == 3.0
    assert placed.own == {"attention_residual", "feed_forward_residual"}


def test_a_tuple_is_returned_where_the_host_returns_one():
    assert layer(Layer(), returns=(None,))(X)[1] is None
    assert len(layer(Layer(), returns=())(X)) == 1


def test_what_the_attention_passes_on_is_returned_in_its_place():
    attention = SimpleNamespace(function=lambda self, x: (self.attn(x), "chosen"))
    placed = layer(Layer(), returns=(None, 0))
    placed.code = (attention, placed.code[1])
    output, weights, chosen = placed(X)
    y = X + placed.attn(X)
    assert torch.equal(output, y + placed.ff(y))
    assert (weights, chosen) == (None, "chosen")


@pytest.mark.parametrize("parallel", ["separate", "shared"])
def test_parallel_branches_both_read_the_layers_input(parallel: str):
    second = Norm() if parallel == "separate" else None
    record = Layer(attention=Sublayer(branch_in=Norm()), feed_forward=Sublayer(branch_in=second), parallel=parallel)
    placed = layer(record)
    gain = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        placed.attention_residual.branch_in.weight.copy_(gain)
    entry = gain * rms(X)
    other = entry if parallel == "shared" else rms(X)
    torch.testing.assert_close(placed(X), X + placed.attn(entry) + placed.ff(other))


def test_a_branch_of_more_than_one_module_ends_in_a_module_of_its_own():
    assert layer(Layer()).branches == ("attn", "ff")
    placed = layer(Layer(), plain=(True, False))
    assert placed.branches == ("attn", "feed_forward_residual.output")
    seen: list[torch.Tensor] = []
    placed.get_submodule(placed.branches[1]).register_forward_hook(lambda module, args, output: seen.append(output))
    placed(X)
    assert torch.equal(seen[0], placed.ff(X + placed.attn(X)))


def test_gains_and_the_norm_on_the_stream_stand_where_the_formula_says():
    record = Sublayer(stream_in=Norm(), branch_out=Norm(), branch_gain=Gain(), skip_gain=Gain(), skip_scale=2.0)
    residual = Residual(record, norm, 4)
    branch_gain, skip_gain = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.25, -1.0, 2.0])
    with torch.no_grad():
        residual.branch_gain.weight.copy_(branch_gain)
        residual.skip_gain.weight.copy_(skip_gain)
    s = rms(X)
    torch.testing.assert_close(residual(X, function), 2.0 * skip_gain * s + branch_gain * rms(function(s)))


def test_scalar_gain_is_one_number_for_all_features():
    residual = Residual(Sublayer(branch_gain=Gain(width="scalar", initial=0.5)), norm, 4)
    assert residual.branch_gain.weight.shape == (1,)
    torch.testing.assert_close(residual(X, function), X + 0.5 * function(X))


def test_gpas_shrinks_the_stream_and_not_its_gradient():
    gate = GpasGate()
    assert torch.equal(gate(X), X), "closed at the start"
    with torch.no_grad():
        gate.weight.fill_(2.0)
    x = X.clone().requires_grad_()
    shrunk = 2.0 / (1 + math.exp(-2.0))
    torch.testing.assert_close(gate(x), (1 - shrunk) * X)
    weight = torch.arange(X.numel(), dtype=X.dtype).view_as(X)
    (gate(x) * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    assert gate.weight.grad.abs() > 0


@pytest.mark.parametrize("place", ["stream", "skip"])
def test_gpas_gate_stands_on_the_sum_or_on_the_skip_alone(place):
    residual = Residual(Sublayer(stream_out=Norm(), gpas=place), norm, 4)
    gate = residual.stream_gate if place == "stream" else residual.skip_gate
    with torch.no_grad():
        gate.weight.fill_(1.0)
    shrunk = 1 - 1 / (1 + math.exp(-1.0))
    sums = {"stream": shrunk * (X + function(X)), "skip": shrunk * X + function(X)}
    torch.testing.assert_close(residual(X, function), rms(sums[place]))


def test_hosts_dropout_falls_on_the_branch_alone():
    residual = Residual(Sublayer(), norm, 4, dropout=1.0)
    assert torch.equal(residual.train()(X, function), X)
    assert torch.equal(residual.eval()(X, function), X + function(X))


def test_stochastic_depth_leaves_out_the_branches_of_whole_samples():
    """What is left is Post-LN of the skip alone, or of the skip and the branch in so much larger that the mean is right."""
    torch.manual_seed(0)
    residual = Residual(Sublayer(stream_out=Norm()), norm, 4, stochastic_depth=0.25).train()
    x = torch.randn(400, 5, 4)
    found = residual(x, function)
    without = torch.isclose(found, rms(x), rtol=1e-4, atol=1e-5).flatten(1).all(-1)
    assert 0.19 < without.float().mean() < 0.31
    torch.testing.assert_close(found[~without], rms(x + function(x) / 0.75)[~without])
    torch.testing.assert_close(residual.eval()(x, function), rms(x + function(x)))


def test_input_of_the_layer_is_added_before_its_last_norm():
    placed = layer(
        Layer(attention=Sublayer(stream_out=Norm()), feed_forward=Sublayer(stream_out=Norm()), bottom_to_top=True)
    )
    y = rms(X + placed.attn(X))
    torch.testing.assert_close(placed(X), rms(X + y + placed.ff(y)))


def test_the_skip_of_the_feed_forward_can_start_at_the_layers_input():
    record = Layer(attention=Sublayer(stream_out=Norm()), feed_forward=Sublayer(stream_out=Norm()), span=True)
    placed = layer(record)
    y = rms(X + placed.attn(X))
    torch.testing.assert_close(placed(X), rms(X + placed.ff(y)))


def test_constant_factor_of_the_branch_stands_after_its_norm_and_gain():
    residual = Residual(Sublayer(branch_out=Norm(), branch_gain=Gain(initial=2.0), output_scale=0.25), norm, 4)
    torch.testing.assert_close(residual(X, function), X + 0.5 * rms(function(X)))
    assert residual.branch_end == "output_scale"
    seen: list[Tensor] = []
    residual.get_submodule(residual.branch_end).register_forward_hook(lambda module, args, output: seen.append(output))
    residual(X, function)
    torch.testing.assert_close(seen[0], 0.5 * rms(function(X)))
    assert residual.to("meta").output_scale.factor == 0.25


def test_balance_keeps_the_variance_of_the_sum_and_is_seen_at_the_branchs_end():
    residual = Residual(Sublayer(balance=Balance(temperature=0.5)), norm, 4)
    assert residual.branch_end == "balanced"
    with torch.no_grad():
        residual.balance.weight.copy_(torch.tensor([-1.0, 0.0, 0.3, 40.0]))
    beta = 1 / (1 + torch.exp(-residual.balance.weight.detach() / 0.5))
    alpha = (1 - beta**2).clamp(min=1e-3).sqrt()
    torch.testing.assert_close(residual(X, function), alpha * X + beta * function(X))
    assert (alpha**2 + beta**2)[:3].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_slope_of_an_open_balance_is_finite():
    gate = BalanceGate(Balance(temperature=0.3, initial=100.0), 4)
    sum(gate()).sum().backward()
    assert torch.isfinite(gate.weight.grad).all()
