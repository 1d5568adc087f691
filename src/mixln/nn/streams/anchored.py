"""Layers that read the embeddings again. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixln.nn.mixing import AnchorMix
from mixln.nn.residual import PlacedLayer


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
