"""Norm modules that a host does not bring itself, and the one place that turns a `Norm` record into a module.

Shapes: B batch, T tokens, H heads, D features of the normalized vector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixln.errors import PlacementError
from mixln.placement import Norm, ProjectionNorm

MakeNorm = Callable[[int], nn.Module]
"""Makes the host family's own norm over vectors of the given size."""


class GroupRMSNorm(nn.Module):
    """RMSNorm within `groups` equal groups of neighbouring features, with one gain a feature.

    y = γ · x / √(mean(x² within the group) + ε), in float32, cast back before the gain is applied (arXiv:1803.08494).

    :param size: D, the features of the last axis; a multiple of `groups`.
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

    def forward(self, x_BTD: Tensor) -> Tensor:
        grouped = x_BTD.float().unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (grouped * scale).flatten(-2).to(x_BTD.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, groups={self.groups}, eps={self.eps}"


class NormedProjection(nn.Module):
    """A projection followed by a norm, per head or over the full width: y = N(W x).

    :param projection: the host's own linear map.
    :param norm: a norm over head_dim (`heads` given) or over all outputs.
    :param heads: number of heads to split the outputs into for the norm, or `None` for the full width.
    """

    def __init__(self, projection: nn.Module, norm: nn.Module, heads: int | None) -> None:
        super().__init__()
        self.projection = projection
        self.norm = norm
        self.heads = heads

    def forward(self, x_BTD: Tensor) -> Tensor:
        return _split_norm(self.norm, self.projection(x_BTD), self.heads)


class PreNormedProjection(NormedProjection):
    """A norm followed by a projection, per head or over the full width: y = W N(x)."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.projection(_split_norm(self.norm, x_BTD, self.heads))


def _split_norm(norm: nn.Module, x_BTD: Tensor, heads: int | None) -> Tensor:
    if heads is None:
        return norm(x_BTD)
    return norm(x_BTD.unflatten(-1, (heads, -1))).flatten(-2)


def make_norm(record: Norm | None, size: int, *, host_norm: MakeNorm, eps: float) -> nn.Module | None:
    """The module for one slot over vectors of `size` features; `None` for an empty slot.

    :raises PlacementError: if the groups of a group norm do not divide `size`.
    """
    if record is None:
        return None
    return NORMS[record.kind](record, size, host_norm, eps)


NORMS: dict[str, Callable[[Norm, int, MakeNorm, float], nn.Module]] = {
    "host": lambda record, size, host_norm, eps: host_norm(size),
    "group": lambda record, size, host_norm, eps: GroupRMSNorm(size, record.groups or 1, eps),
}


def normed_projection(
    projection: nn.Module,
    record: ProjectionNorm,
    *,
    size: int,
    heads: int,
    host_norm: MakeNorm,
    eps: float,
    before: bool,
) -> nn.Module:
    """Wraps a projection with the norm that `record` asks for.

    :param size: features to normalize over all heads, heads · head_dim.
    :param before: normalize the input of the projection (context norm) instead of its output.
    """
    per_head = record.width == "head"
    norm = make_norm(record.norm, size // heads if per_head else size, host_norm=host_norm, eps=eps)
    assert norm is not None
    return (PreNormedProjection if before else NormedProjection)(projection, norm, heads if per_head else None)
