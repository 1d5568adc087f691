"""Residual streams of more than one state, as strategies of their own. Shapes: B batch, T tokens, D hidden size, S states.

A host's loop hands one tensor from layer to layer. A layer with more than one state packs them into it along the features,
the one that the next layer reads last: (B, T, S·D). The first layer unfolds the embeddings, the last one folds the states
back into (B, T, D) for the final norm. So gradient checkpointing, caches and devices work as they do for one stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.residual import PlacedLayer, Residual


class DualResidual(Residual):
    """x' = stream_out(x + f(x)), y' = y + f(x) on the packed state [y, x] (B, T, 2·D)."""

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, 2·D)."""
        beside, stream = x_BTD.chunk(2, dim=-1)
        branch = self.branch(stream, function, *args, **kwargs)
        return torch.cat((beside + branch, self.end(self.skip(stream) + branch)), dim=-1)


class ResiDualLayer(PlacedLayer):
    """ResiDual: a Post-LN stream x and a Pre-LN stream y fed by the same branches; the model ends in x + N(y) (arXiv:2304.14802)."""

    sublayer = DualResidual
    states = "two"

    def __init__(self, *args: Any, norm: Any, index: int, placement: Any, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, index=index, placement=placement, **kwargs)
        self.first = index == 0
        self.dual_norm = norm(placement.history_norm) if index == len(placement.layers) - 1 else None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, 2·D), or (B, T, D) in the first layer."""
        if self.first:
            stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
            hidden_states = torch.cat((stream, stream), dim=-1)
        attention, feed_forward = self.functions
        state = self.attention_residual(hidden_states, attention, *args, **kwargs)
        state = self.feed_forward_residual(state, feed_forward)
        if self.dual_norm is None:
            return state
        beside, stream = state.chunk(2, dim=-1)
        return stream + self.dual_norm(beside)


class Combination(nn.Module):
    """Σ_k w_k s_k over S states (B, T, S·D) → (B, T, D); the weights start as their mean, 1/S."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((states,), 1 / states))

    def starting_values(self) -> dict[str, float]:
        return {"weight": 1 / self.weight.numel()}

    def forward(self, states_BTD: Tensor) -> Tensor:
        # A product and a sum: einsum would run in bfloat16 under autocast, and the stream of no other placement does.
        return (states_BTD.unflatten(-1, (self.weight.numel(), -1)) * self.weight[:, None]).sum(-2)


class DlclLayer(PlacedLayer):
    """Dynamic linear combination of layers: layer l+1 reads Σ_{k≤l} w_k N_k(y_k), y_0 the embeddings (arXiv:1906.01787).

    The packed state is N_0(y_0) … N_l(y_l); the last layer gives the combination that the final norm reads. Memory and
    copies grow with the square of the number of layers.
    """

    states = "many"

    def __init__(self, *args: Any, norm: Any, index: int, placement: Any, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, index=index, placement=placement, **kwargs)
        self.embedding_history_norm = norm(placement.history_norm) if index == 0 else None
        self.combination = Combination(index + 1)
        self.history_norm = norm(placement.history_norm)
        self.last_combination = Combination(index + 2) if index == len(placement.layers) - 1 else None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, l·D) for the l-th layer, counted from 1."""
        if self.embedding_history_norm is not None:
            stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
            hidden_states = self.embedding_history_norm(stream)
        attention, feed_forward = self.functions
        stream = self.attention_residual(self.combination(hidden_states), attention, *args, **kwargs)
        output = self.feed_forward_residual(stream, feed_forward)
        states = torch.cat((hidden_states, self.history_norm(output)), dim=-1)
        return states if self.last_combination is None else self.last_combination(states)


LAYERS: dict[str, type[PlacedLayer]] = {"single": PlacedLayer, "resi-dual": ResiDualLayer, "dlcl": DlclLayer}
"""`Placement.streams` → the layer that keeps them."""
