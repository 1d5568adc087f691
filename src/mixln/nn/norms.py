"""Norm modules that host families lack, and the function that turns a `Norm` record into a module.

Shapes: B batch, T tokens, D features of the normalized vector.
"""

from __future__ import annotations

from collections.abc import Callable

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
    """

    def __init__(self, size: int, groups: int, eps: float) -> None:
        super().__init__()
        if size % groups:
            raise PlacementError(f"groups must divide the normalized size, got {groups} groups for {size} features")
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def starting_values(self) -> dict[str, float]:
        return {"weight": 1.0}

    def forward(self, x_BTD: Tensor) -> Tensor:
        # In float16, squares overflow from 256 on.
        grouped = x_BTD.float().unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (grouped * scale).flatten(-2).to(x_BTD.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, groups={self.groups}, eps={self.eps}"


class DyT(nn.Module):
    """Dynamic tanh in place of a norm: y = γ ⊙ tanh(αx) + β, with a learnable scalar α (arXiv:2503.10622).

    :param size: D, features of the last axis.
    :param alpha: initial α; 0.5 in the paper, except for language models, where it depends on the width.
    """

    def __init__(self, size: int, alpha: float) -> None:
        super().__init__()
        self.start = alpha
        # Shape (1,), because FSDP2 refuses parameters without an axis to shard.
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def starting_values(self) -> dict[str, float]:
        return {"alpha": self.start, "weight": 1.0, "bias": 0.0}

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.alpha * x_BTD) + self.bias

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, alpha={self.start:g}"


def make_norm(record: Norm | None, size: int, *, host_norm: MakeNorm, eps: Callable[[], float]) -> nn.Module | None:
    """Builds the module of one slot for vectors of `size` features; `None` for an empty slot.

    :param eps: gives the ε of the family's norm, for norms that have none of their own; a family may have to build one to know it.
    :raises PlacementError: if the groups of a group norm do not divide `size`.
    """
    if record is None:
        return None
    return NORMS[record.kind](record, size, host_norm, eps)


# `or` only narrows the types: a Norm record of kind group has groups, one of kind dyt has alpha.
NORMS: dict[str, Callable[[Norm, int, MakeNorm, Callable[[], float]], nn.Module]] = {
    "host": lambda record, size, host_norm, eps: host_norm(size),
    "group": lambda record, size, host_norm, eps: GroupRMSNorm(size, record.groups or 1, eps()),
    "dyt": lambda record, size, host_norm, eps: DyT(size, record.alpha or 0.0),
}
