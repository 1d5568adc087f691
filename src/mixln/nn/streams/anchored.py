"""Layers that read the embeddings again. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.residual import PlacedLayer
from mixln.nn.streams.fold import Fold
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

    def forward(self, stream_BTD: Tensor, embedded_BTD: Tensor) -> Tensor:
        return self.keep * stream_BTD + self.add * embedded_BTD

    def extra_repr(self) -> str:
        return f"keep={self.start.keep:.4g}, add={self.start.add:.4g}"


class AnchoredLayer(PlacedLayer):
    """A layer that first mixes the embeddings e into its input: x ← λ·x + μ·e (karpathy/nanochat).

    e travels beside x in the packed state [e, x], (B, T, 2·D). A buffer would not survive activation checkpointing, where a layer
    runs again after another forward pass may have begun.
    """

    first_states = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.record.anchor is not None
        self.anchor = AnchorMix(self.record.anchor)

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, 2·D), or (B, T, D) in the first layer."""
        states = self.enter(hidden_states)
        embedded, _ = states.chunk(2, dim=-1)
        return torch.cat((embedded, self.through(self.bottom(states), *args, **kwargs)), dim=-1)

    def bottom(self, states: Tensor) -> Tensor:
        embedded, stream = states.chunk(2, dim=-1)
        return self.anchor(stream, embedded)


class AnchoredFold(Fold):
    """The stream without the embeddings beside it."""

    def fold(self, states_BTD: Tensor) -> Tensor:
        return states_BTD[..., -self.size :]
