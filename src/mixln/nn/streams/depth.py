"""Attention over depth: every branch reads a weighted mean of the sums of earlier blocks of layers.

Shapes: B batch, T tokens, D hidden size, S states: the embeddings, the sum of the branches of each finished block, and, last, the
sum of those of the current block so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.residual import MakeSlot, PlacedLayer, Residual
from mixln.nn.streams.fold import Fold
from mixln.nn.streams.maps import exact, uncast, unit
from mixln.placement import Placement


class DepthAttention(nn.Module):
    """Σ_i α_i v_i with α = softmax_i(w · N°(v_i)), N° without gain, in float32; w starts at 0, a mean (arXiv:2603.15031).

    :param normed: as in Inkling-2, α = softmax_i(w · N°(v_i)/√D), and N°(v_i) are the values too.
    """

    def __init__(self, size: int, *, normed: bool) -> None:
        super().__init__()
        self.normed = normed
        self.size = size
        self.query = nn.Parameter(torch.zeros(size))

    def starting_values(self) -> dict[str, float]:
        return {"query": 0.0}

    def forward(self, states_BTD: Tensor) -> Tensor:
        """(B, T, S·D) → (B, T, D)."""
        values = exact(states_BTD.unflatten(-1, (-1, self.size)))
        with uncast(values):
            keys = unit(values)
            scores = keys @ self.query.to(keys.dtype) / (math.sqrt(self.size) if self.normed else 1.0)
            weights = scores.softmax(dim=-1).unsqueeze(-2)
            return (weights @ (keys if self.normed else values)).squeeze(-2).to(states_BTD.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}, normed={self.normed}"


class DepthResidual(Residual):
    """Adds f(N(x)) to the last of the packed states (B, T, S·D), which x is a mean of, or begins a new one."""

    packed = True
    depth: DepthAttention | None
    """`None` in the first sublayer, which has one state to read; set by the layer, as is `begins`."""
    begins: bool

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, S·D)."""
        stream = x_BTD if self.depth is None else self.depth(x_BTD)
        branch = self.branch(stream, function, *args, **kwargs).to(x_BTD.dtype)
        if self.begins:
            return torch.cat((x_BTD, branch), dim=-1)
        return torch.cat((x_BTD[..., : -self.size], x_BTD[..., -self.size :] + branch), dim=-1)


class DepthLayer(PlacedLayer):
    """Block attention residuals: a block is `stream_period` layers (arXiv:2603.15031)."""

    sublayer = DepthResidual
    grows = True
    normed = False

    def __init__(self, *args: Any, size: int, index: int, placement: Placement, **kwargs: Any) -> None:
        super().__init__(*args, size=size, index=index, placement=placement, **kwargs)
        for side, (_, residual) in enumerate(self.sublayers):
            assert isinstance(residual, DepthResidual)
            residual.depth = DepthAttention(size, normed=self.normed) if index or side else None
            residual.begins = side == 0 and index % placement.stream_period == 0


class NormedDepthLayer(DepthLayer):
    """The form of Inkling-2."""

    normed = True


class DepthFold(Fold):
    """The mean with weights of its own that the final norm reads."""

    normed = False

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.depth = DepthAttention(size, normed=self.normed)

    def fold(self, states_BTD: Tensor) -> Tensor:
        return self.depth(states_BTD)


class NormedDepthFold(DepthFold):
    normed = True
