"""Maps between several streams against the modules of the families that ship them, with copied weights: values and gradients.

Shapes: B batch, T tokens, N streams, D hidden size.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import placed

D, N, B, T = 32, 4, 2, 5
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
CONFIG = SimpleNamespace(
    hidden_size=D,
    rms_norm_eps=1e-6,
    hc_mult=N,
    hc_eps=1e-6,
    hc_sinkhorn_iters=20,
    hc_magnitude=2.0,
    hc_count=N,
    hc_lowrank=5,
    _attn_implementation="eager",
)


def theirs(family: str, name: str, *arguments: Any) -> nn.Module:
    reason = f"transformers of this version has no {family}"
    code: Any = pytest.importorskip(f"transformers.models.{family}.modeling_{family}", reason=reason)
    return getattr(code, name)(CONFIG, *arguments)


def streams(seed: int = 3) -> Tensor:
    return torch.randn(B, T, N, D, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def branch(x_BTD: Tensor) -> Tensor:
    return torch.sin(3 * x_BTD)


def copy(source: nn.Module, target: nn.Module, **names: str) -> None:
    """:param names: parameter of the target → of the source."""
    with torch.no_grad():
        for own, other in names.items():
            target.get_parameter(own.replace("__", ".")).copy_(source.get_parameter(other))


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return module


def assert_alike(
    ours: nn.Module, other: nn.Module, mine: Tensor, x: Tensor, expected: Tensor, y: Tensor, **names: str
) -> None:
    """Equal outputs, and equal gradients of a random function of them for inputs and parameters."""
    torch.testing.assert_close(mine, expected.reshape(mine.shape), **CLOSE)
    direction = torch.randn(mine.shape, generator=torch.Generator().manual_seed(9))
    (mine * direction).sum().backward()
    (expected.reshape(mine.shape) * direction).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    for own, name in names.items():
        found, wanted = ours.get_parameter(own.replace("__", ".")).grad, other.get_parameter(name).grad
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert wanted.abs().max() > 1e-4


def residual(placement: str) -> nn.Module:
    """A sublayer without the norm before its branch."""
    found = placed(placement, hidden_size=D).model.layers[1].feed_forward_residual
    found.branch_in = None
    return found


def test_mhc_sublayer_is_that_of_deepseek_v4():
    other, ours = randomised(theirs("deepseek_v4", "DeepseekV4HyperConnection")), residual("mhc")
    names = {"maps__weight": "fn", "maps__bias": "base", "maps__scale": "scale"}
    copy(other, ours, **names)
    x, y = streams(), streams()
    post, comb, collapsed = other(y)
    expected = post.unsqueeze(-1) * branch(collapsed).unsqueeze(-2) + comb.transpose(-1, -2) @ y
    assert_alike(ours, other, ours(x.flatten(-2), branch), x, expected, y, **names)


def test_mhc_end_is_that_of_deepseek_v4():
    other, ours = randomised(theirs("deepseek_v4", "DeepseekV4HyperHead")), placed("mhc").model.stream_fold
    names = {"maps__weight": "hc_fn", "maps__bias": "hc_base", "maps__scale": "hc_scale"}
    copy(other, ours, **names)
    x, y = streams(), streams()
    assert_alike(ours, other, ours(x.flatten(-2)), x, other(y), y, **names)


def test_ihc_sublayer_is_that_of_hunyuan_4():
    other, ours = randomised(theirs("hy_v4", "HYV4HyperConnection")), residual("ihc")
    names = {"maps__weight": "fn", "maps__bias": "base", "maps__scale": "scale"}
    copy(other, ours, **names)
    x, y = streams(), streams()
    post, collapsed = other(y)
    expected = post.unsqueeze(-1) * branch(collapsed).unsqueeze(-2) + y
    assert_alike(ours, other, ours(x.flatten(-2), branch), x, expected, y, **names)


def test_ihc_end_is_that_of_hunyuan_4():
    other, ours = randomised(theirs("hy_v4", "HYV4HyperHead")), placed("ihc").model.stream_fold
    names = {"maps__weight": "hc_fn", "maps__bias": "hc_base", "maps__scale": "hc_scale"}
    copy(other, ours, **names)
    x, y = streams(), streams()
    assert_alike(ours, other, ours(x.flatten(-2)), x, other(y), y, **names)


GATES = {
    "maps__down": "input_mix_weight_down.weight",
    "maps__up": "input_mix_weight_up.weight",
    "maps__norm__weight": "hc_norm.weight",
}


def gated(ours: nn.Module, *arguments: Any) -> nn.Module:
    """Its module with our gains, which it stores as gain − 1."""
    other = randomised(theirs("qwen4_exp", "Qwen4ExpTextGatedResidual", *arguments))
    copy(other, ours, **GATES)
    with torch.no_grad():
        ours.get_parameter("maps.norm.weight").add_(1)
    return other


def test_gated_sublayer_is_that_of_qwen4_exp():
    ours = residual("gated-streams")
    other = gated(ours)
    names = {**GATES, "maps__write": "block_inject_weight.weight"}
    copy(other, ours, maps__write="block_inject_weight.weight")
    x, y = streams(), streams()
    mixed, kept, weights = other(y.flatten(-2))
    expected = kept.unflatten(-1, (N, D)) + weights.unsqueeze(-1) * branch(mixed).unsqueeze(-2)
    assert_alike(ours, other, ours(x.flatten(-2), branch), x, expected, y, **names)


def test_gated_end_is_that_of_qwen4_exp():
    ours = placed("gated-streams").model.stream_fold
    other = gated(ours, False)
    x, y = streams(), streams()
    assert_alike(ours, other, ours(x.flatten(-2)), x, other(y.flatten(-2)), y, **GATES)


def test_depth_attention_is_that_of_inkling_2():
    """Four layers in blocks of two, chained as Inkling-2's decoder layers with sliding attention and its model chain them."""
    layers, block = 4, 2
    model = placed(f"attnres({block},normed)", num_hidden_layers=layers, hidden_size=D).model
    residuals = [residual for layer in model.layers for _, residual in layer.sublayers]
    ours = [*(residual.depth for residual in residuals[1:]), model.stream_fold.depth]
    other = [randomised(theirs("inkling2", "Inkling2BlockAttentionResidual")) for _ in ours]
    for mine, module in zip(ours, other, strict=True):
        copy(module, mine, query="query")
    x, y = (torch.randn(B, T, D, generator=torch.Generator().manual_seed(3)).requires_grad_() for _ in range(2))
    packed = x
    for residual in residuals:
        residual.branch_in = None
        packed = residual(packed, branch)
    hidden, blocks, modules = y, y.new_zeros(B, T, 0, D), iter(other)
    for index in range(layers):
        before = hidden
        hidden = hidden if index == 0 else next(modules)(blocks, hidden)[0]
        kept = branch(hidden)
        if index % block == 0:
            blocks = torch.cat((blocks, before.unsqueeze(-2)), dim=-2)
        else:
            kept = before + kept
        hidden = kept + branch(next(modules)(blocks, kept)[0])
    expected = next(modules)(blocks, hidden)[0]
    assert_alike(model.stream_fold, other[-1], model.stream_fold(packed), x, expected, y, depth__query="query")
    for mine, module in zip(ours, other, strict=True):
        torch.testing.assert_close(mine.query.grad, module.query.grad, rtol=1e-4, atol=1e-4)
