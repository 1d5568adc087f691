"""Norm modules against torch.nn and against their formula, forward and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mixln.errors import PlacementError
from mixln.nn.norms import DyT, GroupRMSNorm, make_norm
from mixln.placement import Norm

EPS = 1e-6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def host_norm(size: int) -> nn.Module:
    return nn.RMSNorm(size, eps=EPS)


def with_gains(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    return norm


@pytest.mark.parametrize("groups", [1, 2, 3, 12])
def test_group_norm_is_torchs_rms_norm_of_each_group(groups):
    norm = with_gains(GroupRMSNorm(12, groups, EPS))
    x = random(2, 5, 12).requires_grad_()
    same, gain = x.detach().clone().requires_grad_(), norm.weight.detach().clone().requires_grad_()
    size = 12 // groups
    expected = torch.cat([nn.functional.rms_norm(part, (size,), eps=EPS) for part in same.split(size, -1)], -1) * gain
    torch.testing.assert_close(norm(x), expected, rtol=1e-6, atol=1e-6)
    weight = random(2, 5, 12, seed=3)
    (norm(x) * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.weight.grad, gain.grad, rtol=1e-5, atol=1e-6)


def test_group_norm_follows_its_formula():
    x = torch.tensor([3.0, 4.0, 0.0, 2.0])
    norm = GroupRMSNorm(4, 2, eps=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    first, second = (25 / 2 + 0.5) ** -0.5, (4 / 2 + 0.5) ** -0.5
    expected = torch.tensor([3 * first, 2 * 4 * first, 0.0, 4 * 2 * second])
    torch.testing.assert_close(norm(x), expected, rtol=1e-6, atol=0)


def test_groups_do_not_see_each_other():
    x = random(1, 8)
    changed = x.clone()
    changed[..., 4:] *= 10
    norm = GroupRMSNorm(8, 2, EPS)
    assert torch.equal(norm(x)[..., :4], norm(changed)[..., :4])
    assert not torch.equal(norm(changed)[..., 4:], changed[..., 4:])


def test_group_norm_computes_in_float32_and_casts_back_before_the_gain():
    norm = with_gains(GroupRMSNorm(8, 2, EPS)).to(torch.bfloat16)
    x = random(3, 8).to(torch.bfloat16)
    grouped = x.float().reshape(3, 2, 4)
    normalized = (grouped * torch.rsqrt((grouped * grouped).mean(-1, keepdim=True) + EPS)).reshape(3, 8)
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), norm.weight * normalized.to(torch.bfloat16))


@pytest.mark.parametrize(("size", "groups"), [(32, 5), (4, 8)])
def test_groups_that_do_not_divide_are_refused_with_both_numbers(size, groups):
    with pytest.raises(PlacementError, match=f"groups must divide .* got {groups} groups for {size} features"):
        GroupRMSNorm(size, groups, EPS)


def test_absent_norm_is_none():
    assert make_norm(None, 8, host_norm=host_norm, eps=lambda: EPS) is None


def test_host_norm_is_the_familys_own():
    assert isinstance(make_norm(Norm(), 8, host_norm=host_norm, eps=lambda: EPS), nn.RMSNorm)


def test_group_norm_gets_its_groups_and_epsilon():
    norm = make_norm(Norm(kind="group", groups=2), 8, host_norm=host_norm, eps=lambda: 0.125)
    assert (norm.groups, norm.eps, norm.weight.shape) == (2, 0.125, (8,))


def test_dyt_follows_its_formula_forward_and_gradients():
    norm = with_gains(DyT(6, alpha=0.7))
    with torch.no_grad():
        norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    x, weight = random(2, 3, 6).requires_grad_(), random(2, 3, 6, seed=4)
    tanh = torch.tanh(0.7 * x.detach())
    torch.testing.assert_close(norm(x), norm.weight * tanh + norm.bias)
    (norm(x) * weight).sum().backward()
    slope = weight * norm.weight.detach() * (1 - tanh**2)
    torch.testing.assert_close(x.grad, 0.7 * slope)
    torch.testing.assert_close(norm.alpha.grad, (slope * x.detach()).sum().view(1))
    torch.testing.assert_close(norm.weight.grad, (weight * tanh).sum((0, 1)))
    torch.testing.assert_close(norm.bias.grad, weight.sum((0, 1)))


def test_dyt_record_gives_its_alpha():
    norm = make_norm(Norm(kind="dyt", alpha=0.25), 8, host_norm=host_norm, eps=lambda: EPS)
    assert (norm.alpha.item(), norm.weight.shape, norm.bias.shape) == (0.25, (8,), (8,))
