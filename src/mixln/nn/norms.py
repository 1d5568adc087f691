"""Norm modules that host families lack, and the function that turns a `Norm` record into a module.

Shapes: B batch, T tokens, D features of the normalized vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixln.errors import PlacementError
from mixln.placement import Norm

MakeNorm = Callable[[int], nn.Module]
"""Builds the host family's own norm for vectors of a given size."""


class GroupRMSNorm(nn.Module):
    """RMSNorm within `groups` equal groups of adjacent features, with one gain per feature.

    y = γ · x / √(mean(x² within the group) + ε), computed in float32 and cast back before the gain is applied (arXiv:1803.08494).

    :param size: D, features of the last axis; a multiple of `groups`.
    :param groups: number of groups.
    :param eps: ε, added to the mean square.
    :param gain: initial γ.
    """

    def __init__(self, size: int, groups: int, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        if size % groups:
            raise PlacementError(f"groups must divide the normalized size, got {groups} groups for {size} features")
        self.groups = groups
        self.eps = eps
        self.gain = gain
        self.weight = nn.Parameter(torch.full((size,), gain))

    def starting_values(self) -> dict[str, float]:
        return {"weight": self.gain}

    def forward(self, x_BTD: Tensor) -> Tensor:
        # In float16, squares overflow from 256 on.
        grouped = x_BTD.float().unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (grouped * scale).flatten(-2).to(x_BTD.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, groups={self.groups}, eps={self.eps}"


class Squash(nn.Module):
    """A bounded function with a learnable slope in place of a norm: y = γ ⊙ g(αx + s) + β, with scalars α and s.

    :param size: D, features of the last axis.
    :param alpha: initial α.
    :param gain: initial γ.
    """

    shifted = False
    """Whether there is an s, initially 0."""

    def __init__(self, size: int, alpha: float, gain: float = 1.0) -> None:
        super().__init__()
        self.start, self.gain = alpha, gain
        # Shape (1,), because FSDP2 refuses parameters without an axis to shard.
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.shift = nn.Parameter(torch.zeros(1)) if self.shifted else None
        self.weight = nn.Parameter(torch.full((size,), gain))
        self.bias = nn.Parameter(torch.zeros(size))

    def starting_values(self) -> dict[str, float]:
        shift = {"shift": 0.0} if self.shifted else {}
        return {"alpha": self.start, **shift, "weight": self.gain, "bias": 0.0}

    def forward(self, x_BTD: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, alpha={self.start:g}"


class DyT(Squash):
    """Dynamic tanh: y = γ ⊙ tanh(αx) + β (arXiv:2503.10622). α is 0.5 in the paper, except for language models, where it depends on
    the width."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.alpha * x_BTD) + self.bias


class Derf(Squash):
    """Dynamic error function: y = γ ⊙ erf(αx + s) + β (arXiv:2512.10938); α is 0.5 and s is 0 at the start."""

    shifted = True

    def forward(self, x_BTD: Tensor) -> Tensor:
        assert self.shift is not None
        return self.weight * torch.erf(self.alpha * x_BTD + self.shift) + self.bias


class BoundedTanh(nn.Module):
    """Bounded hyperbolic tangent: y = γ ⊙ tanh(λ·x / (κ·√(mean(x²) + ε))), with a learnable scalar λ and κ = 10 (BHyT*, arXiv:2601.09719).

    The mean square is computed in float32 by each norm; the paper's BHyT estimates that of every second norm from the first, for speed.

    :param size: D, features of the last axis; `eps`: ε.
    :param slope: initial λ.
    :param gain: initial γ.
    """

    KAPPA = 10.0

    def __init__(self, size: int, slope: float, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        self.start, self.eps, self.gain = slope, eps, gain
        self.alpha = nn.Parameter(torch.full((1,), slope))
        self.weight = nn.Parameter(torch.full((size,), gain))

    def starting_values(self) -> dict[str, float]:
        return {"alpha": self.start, "weight": self.gain}

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide = x_BTD.float()
        scale = self.alpha * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) / self.KAPPA
        return self.weight * torch.tanh(scale * wide).to(x_BTD.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, alpha={self.start:g}, eps={self.eps}"


class UnitNorm(nn.Module):
    """x / ‖x‖, without a gain, computed in float32 or wider (nGPT, arXiv:2410.01131)."""

    EPS = 1e-12
    """Added to ‖x‖², so that a padding token's row of zeros has a finite gradient."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.pow(2).sum(-1, keepdim=True) + self.EPS)).to(x_BTD.dtype)


@dataclass(frozen=True)
class GainStart:
    """The starting values of a norm that is not this package's, as its attribute `starting_values`."""

    weight: float

    def __call__(self) -> dict[str, float]:
        return {"weight": self.weight}


def host_norm_from(gain: float, size: int, host_norm: MakeNorm) -> nn.Module:
    """Builds the host family's norm so that each of its factors starts at `gain`.

    The weight is the factor in most families, and the factor minus one in Gemma's and Nemotron's.

    :raises PlacementError: if the norm has no factor per feature.
    """
    norm = host_norm(size)
    if gain == 1.0:
        return norm
    with torch.device("cpu"), torch.no_grad():
        probe, x = host_norm(2), torch.tensor([1.0, -2.0])
        weight = getattr(probe, "weight", None)
        if not isinstance(weight, nn.Parameter):
            raise PlacementError(
                f"a norm whose gain starts at {gain:.4g} needs a norm with a gain, and {type(norm).__name__} has none; "
                "choose a placement without such a norm, for example sandwich"
            )
        # The norm is (offset + weight) ⊙ x̂ + bias, with an offset of 0 or 1.
        for parameter in probe.parameters():
            parameter.zero_()
        at_zero = probe(x)
        weight.fill_(1.0)
        offset = (at_zero / (probe(x) - at_zero))[0].item()
    norm.starting_values = GainStart(gain - offset)  # type: ignore[assignment]
    return norm


def make_norm(record: Norm | None, size: int, *, host_norm: MakeNorm, eps: Callable[[], float]) -> nn.Module | None:
    """Builds the module of one slot for vectors of `size` features; `None` for an empty slot.

    :param eps: gives the ε of the family's norm, for norms that have none of their own; a family may have to build one to know it.
    :raises PlacementError: if the groups of a group norm do not divide `size`, or the family's norm has no gain to start elsewhere.
    """
    if record is None:
        return None
    return NORMS[record.kind](record, size, host_norm, eps)


# `or` only narrows the types: a Norm record of kind group has groups, one of kind dyt has alpha.
NORMS: dict[str, Callable[[Norm, int, MakeNorm, Callable[[], float]], nn.Module]] = {
    "host": lambda record, size, host_norm, eps: host_norm_from(record.gain, size, host_norm),
    "group": lambda record, size, host_norm, eps: GroupRMSNorm(size, record.groups or 1, eps(), record.gain),
    "dyt": lambda record, size, host_norm, eps: DyT(size, record.alpha or 0.0, record.gain),
    "derf": lambda record, size, host_norm, eps: Derf(size, record.alpha or 0.0, record.gain),
    "unit": lambda record, size, host_norm, eps: UnitNorm(),
    "bhyt": lambda record, size, host_norm, eps: BoundedTanh(size, record.alpha or 0.0, eps(), record.gain),
}
