"""Learned sums of a tensor and an earlier one, and how the first layer's values reach the later layers.

Shapes: B batch, T tokens, D hidden size, S states, K width of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixln.placement import Anchor


class AnchorMix(nn.Module):
    """λ·x + μ·e, with learnable scalars λ and μ."""

    def __init__(self, record: Anchor) -> None:
        super().__init__()
        self.start = record
        # Shape (1,), because FSDP2 refuses parameters without an axis to shard.
        self.keep = nn.Parameter(torch.full((1,), record.keep))
        self.add = nn.Parameter(torch.full((1,), record.add))

    def starting_values(self) -> dict[str, float]:
        return {"keep": self.start.keep, "add": self.start.add}

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """:param earlier: e; like `x` (B, T, D), or (B, T, K) of values."""
        return self.keep * x + self.add * earlier

    def extra_repr(self) -> str:
        return f"keep={self.start.keep:.4g}, add={self.start.add:.4g}"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The form of the tensor between two layers: [v₁, states], (B, T, K + S·D), or the states alone where no v₁ goes along.

    v₁ travels with the states for the reason that the embeddings do in :class:`~mixln.nn.streams.anchored.AnchoredLayer`.

    :param values: K; 0 if no layer reads v₁.
    :param states: S·D after the first layer's :meth:`~mixln.nn.residual.PlacedLayer.enter`.
    """

    values: int
    states: int

    def split(self, packed: Tensor) -> tuple[Tensor | None, Tensor]:
        """(v₁, states); `None` where there is no v₁ yet, as in the input of the first layer that is not skipped."""
        # A tensor with v₁ is wider than the input of the first layer. So is a stream that grows, but its layers are never skipped.
        if not self.values or packed.shape[-1] <= self.states:
            return None, packed
        return packed[..., : self.values], packed[..., self.values :]


class FirstValues:
    """v₁ of one forward pass, (B, T, K); `None` until the first layer has computed it."""

    def __init__(self, values: Tensor | None) -> None:
        self.values = values
