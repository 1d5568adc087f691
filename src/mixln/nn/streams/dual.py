"""Two residual streams fed by the same branches. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.residual import MakeSlot, PlacedLayer, Residual
from mixln.nn.streams.fold import Fold
from mixln.placement import Placement


class DualResidual(Residual):
    """x' = stream_out(x + f(x)), y' = y + f(x) on the packed state [y, x] (B, T, 2·D)."""

    packed = True

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, 2·D)."""
        second, stream = x_BTD.chunk(2, dim=-1)
        branch = self.branch(stream, function, *args, **kwargs)
        return torch.cat((second + branch, self.end(self.skip(stream) + branch)), dim=-1)


class ResiDualLayer(PlacedLayer):
    """ResiDual: a Post-LN stream x and a Pre-LN stream y, fed by the same branches (arXiv:2304.14802)."""

    sublayer = DualResidual
    first_states = 2


class ResiDualFold(Fold):
    """x + N(y), the input of the final norm."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.dual_norm = norm(placement.history_norm)

    def fold(self, states_BTD: Tensor) -> Tensor:
        assert self.dual_norm is not None
        second, stream = states_BTD.chunk(2, dim=-1)
        return stream + self.dual_norm(second)


class SiameseResidual(Residual):
    """f = F(branch_in(s + second_in(y))), s = stream_in(x);  x' = stream_out(s + f/√(2l)), y' = y + f on the packed state [y, x]."""

    packed = True
    second_in: nn.Module
    """Norm of y; set by the layer, as is `share`, 1/√(2l) with the layer's number l from 1."""
    share: float

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, 2·D)."""
        second, stream = x_BTD.chunk(2, dim=-1)
        stream = stream if self.stream_in is None else self.stream_in(stream)
        branch = self.branch(stream + self.second_in(second), function, *args, **kwargs)
        return torch.cat((second + branch, self.end(self.skip(stream) + self.share * branch)), dim=-1)


class SiameseLayer(ResiDualLayer):
    """SiameseNorm: a Post-LN stream x and a Pre-LN stream y, which every branch reads together (arXiv:2602.08064)."""

    sublayer = SiameseResidual

    def __init__(self, *args: Any, norm: MakeSlot, index: int, placement: Placement, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, index=index, placement=placement, **kwargs)
        number = self.record.number or index + 1
        for _, residual in self.sublayers:
            assert isinstance(residual, SiameseResidual)
            second = norm(placement.history_norm)
            assert second is not None
            residual.second_in = second
            residual.share = 1 / math.sqrt(2 * number)


class SiameseFold(Fold):
    """N(x) + N'(y), the input of the final norm."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.stream_norm = norm(placement.history_norm)
        self.dual_norm = norm(placement.history_norm)

    def fold(self, states_BTD: Tensor) -> Tensor:
        assert self.stream_norm is not None
        assert self.dual_norm is not None
        second, stream = states_BTD.chunk(2, dim=-1)
        return self.stream_norm(stream) + self.dual_norm(second)
