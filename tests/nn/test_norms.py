"""Norm modules against torch.nn and against their formula, forward and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mixln.errors import PlacementError
from mixln.nn.norms import BoundedTanh, Derf, DyT, GroupRMSNorm, make_norm
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


def test_derf_follows_its_formula_forward_and_gradients():
    norm = with_gains(Derf(6, alpha=0.7))
    with torch.no_grad():
        norm.shift.fill_(0.3)
        norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    x, weight = random(2, 3, 6).requires_grad_(), random(2, 3, 6, seed=4)
    inner = 0.7 * x.detach() + 0.3
    torch.testing.assert_close(norm(x), norm.weight * torch.special.erf(inner) + norm.bias)
    (norm(x) * weight).sum().backward()
    slope = weight * norm.weight.detach() * 2 / math.sqrt(math.pi) * torch.exp(-(inner**2))
    torch.testing.assert_close(x.grad, 0.7 * slope)
    torch.testing.assert_close(norm.alpha.grad, (slope * x.detach()).sum().view(1))
    torch.testing.assert_close(norm.shift.grad, slope.sum().view(1))
    torch.testing.assert_close(norm.bias.grad, weight.sum((0, 1)))


def test_bounded_tanh_follows_its_formula_and_stays_within_its_gain():
    norm = BoundedTanh(4, slope=2.0, eps=0.5)
    x = torch.tensor([3.0, -4.0, 0.0, 5.0])
    rms = math.sqrt(50 / 4 + 0.5)
    torch.testing.assert_close(norm(x), torch.tanh(2.0 * x / (10 * rms)))
    with torch.no_grad():
        norm.alpha.fill_(1e4)
    assert norm(100 * x).abs().max() <= 1.0


def test_bounded_tanh_computes_its_mean_square_in_float32():
    norm = with_gains(BoundedTanh(8, slope=2.0, eps=EPS)).to(torch.bfloat16)
    x = (300 * random(3, 8)).to(torch.bfloat16)
    wide = x.float()
    expected = torch.tanh(2.0 / 10 * wide / (wide.pow(2).mean(-1, keepdim=True) + EPS).sqrt())
    assert torch.equal(norm(x), norm.weight * expected.to(torch.bfloat16))


class OnePlus(nn.Module):
    """As Gemma's norm: the factor is 1 + weight."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.weight) * nn.functional.rms_norm(x, x.shape[-1:], eps=EPS)


@pytest.mark.parametrize("family", [host_norm, nn.LayerNorm, OnePlus])
def test_factor_of_the_familys_norm_starts_where_it_is_told(family):
    norm = make_norm(Norm(gain=0.25), 8, host_norm=family, eps=lambda: EPS)
    with torch.no_grad():
        for name, value in norm.starting_values().items():
            getattr(norm, name).fill_(value)
    x = random(3, 8)
    torch.testing.assert_close(norm(x), 0.25 * family(8)(x))
    assert type(norm) is type(family(8))


def test_factor_that_the_familys_norm_does_not_have_is_refused():
    def bare(size: int) -> nn.Module:
        return nn.LayerNorm(size, elementwise_affine=False)

    with pytest.raises(PlacementError, match=r"gain starts at 0.25 needs a norm with a gain, and LayerNorm has none"):
        make_norm(Norm(gain=0.25), 8, host_norm=bare, eps=lambda: EPS)


@pytest.mark.parametrize("record", [Norm(kind="group", groups=2, gain=0.5), Norm(kind="dyt", alpha=0.5, gain=0.5),
                                    Norm(kind="derf", alpha=0.5, gain=0.5), Norm(kind="bhyt", alpha=2.0, gain=0.5)])  # fmt: skip
def test_other_norms_start_with_the_gain_of_their_record(record):
    norm = make_norm(record, 8, host_norm=host_norm, eps=lambda: EPS)
    assert torch.equal(norm.weight, torch.full((8,), 0.5))
    assert norm.starting_values()["weight"] == 0.5
