"""The residual algebra: y = stream_out( skip_scale · x + branch_out( f( branch_scale · branch_in(x) ) ) )."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from mixln.nn.residual import PlacedLayer, Residual
from mixln.placement import Layer, Norm, Sublayer

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
    residual = Residual(Sublayer(**slots, branch_scale=branch_scale, skip_scale=skip_scale), norm)
    branch = function(branch_scale * (rms(X) if branch_in else X))
    y = skip_scale * X + (rms(branch) if branch_out else branch)
    torch.testing.assert_close(residual(X, function), rms(y) if stream_out else y)
    assert len(list(residual.parameters())) == sum(present)


def test_only_the_first_entry_of_a_tuple_is_the_branch():
    residual = Residual(Sublayer(), norm)
    assert torch.equal(residual(X, lambda x: (2 * x, "weights")), X + 2 * X)


def test_further_arguments_reach_the_function():
    residual = Residual(Sublayer(), norm)
    assert torch.equal(residual(X, lambda x, by, *, plus: by * x + plus, 3.0, plus=1.0), X + (3 * X + 1))


def test_scales_are_python_numbers_that_no_device_move_can_lose():
    residual = Residual(Sublayer(branch_scale=0.5, skip_scale=1.7), norm).to("meta").to_empty(device="cpu")
    assert (residual.branch_scale, residual.skip_scale) == (0.5, 1.7)
    assert list(residual.buffers()) == []


def test_scales_keep_the_dtype_of_the_stream():
    residual = Residual(Sublayer(branch_scale=0.5, skip_scale=1.7), norm)
    assert residual(X.bfloat16(), function).dtype == torch.bfloat16


def layer(record: Layer, stream_in: Norm | None = None) -> PlacedLayer:
    attention, feed_forward = nn.Linear(4, 4), nn.Linear(4, 4)
    return PlacedLayer(
        record, attention=("attn", attention), feed_forward=("ff", feed_forward), norm=norm, stream_in=stream_in
    )


def test_layer_is_attention_then_feed_forward():
    placed = layer(Layer(attention=Sublayer(branch_in=Norm()), feed_forward=Sublayer(stream_out=Norm())))
    y = X + placed.attn(rms(X))
    torch.testing.assert_close(placed(X), rms(y + placed.ff(y)))
    assert placed.attention is placed.attn
    assert placed.feed_forward is placed.ff


def test_norm_on_the_layers_input_is_in_the_stream_itself():
    placed = layer(Layer(), stream_in=Norm())
    x = rms(X)
    y = x + placed.attn(x)
    torch.testing.assert_close(placed(X), y + placed.ff(y))


def test_absent_norms_leave_no_name_behind():
    assert {name.rpartition(".")[0] for name in layer(Layer()).state_dict()} == {"attn", "ff"}
