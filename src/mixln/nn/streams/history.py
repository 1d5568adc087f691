"""Layers that read a learned sum of all earlier layers' outputs. Shapes: B batch, T tokens, D hidden size, S states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixln.nn.initialisation import Start
from mixln.nn.residual import MakeSlot, PlacedLayer
from mixln.nn.streams.fold import Fold, References
from mixln.placement import Placement


class Combination(nn.Module):
    """Σ_k w_k s_k over S states, (B, T, S·D) → (B, T, D); every weight starts at 1/S, a mean.

    :param last: instead, the last weight starts at 1 and the others at 0.
    """

    def __init__(self, states: int, *, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.weight = nn.Parameter(torch.full((states,), 1 / states))

    def starting_values(self) -> dict[str, Start]:
        count = self.weight.numel()
        return {"weight": functional.one_hot(torch.tensor(count - 1), count).float() if self.last else 1 / count}

    def forward(self, states_BTD: Tensor) -> Tensor:
        # Product and sum: autocast would run an einsum in bfloat16, and every other residual stream stays in float32.
        return (states_BTD.unflatten(-1, (self.weight.numel(), -1)) * self.weight[:, None]).sum(-2)


class DlclLayer(PlacedLayer):
    """Dynamic linear combination of layers: layer l+1 reads Σ_{k≤l} w_k N_k(y_k), y_0 the embeddings (arXiv:1906.01787).

    The packed state is N_0(y_0) … N_l(y_l). Memory and copying grow with the square of the number of layers.
    """

    grows = True

    def __init__(self, *args: Any, norm: Any, index: int, placement: Any, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, index=index, placement=placement, **kwargs)
        self.embedding_history_norm = norm(placement.history_norm) if index == 0 else None
        # Reads y_0 (the embeddings) to y_index: one state more than the layers before it.
        self.combination = Combination(index + 1)
        self.history_norm = norm(placement.history_norm)

    def called_outside(self) -> tuple[nn.Module, ...]:
        return (self.combination,)

    def enter(self, hidden_states: Tensor) -> Tensor:
        states = super().enter(hidden_states)
        return states if self.embedding_history_norm is None else self.embedding_history_norm(states)

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, l·D) in layer l, counted from 1."""
        hidden_states = self.enter(hidden_states)
        attention, feed_forward = self.calls
        stream = self.attention_residual(self.combination(hidden_states), attention, *args, **kwargs)
        output = self.feed_forward_residual(stream, feed_forward, *args, **kwargs)
        return torch.cat((hidden_states, self.history_norm(output)), dim=-1)


class DlclFold(Fold):
    """What the next layer would read: its combination, or the newest state if it has none; after the last layer, a separate one."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.last_combination = self.last(placement, len(layers))
        self.layers = References(layers)

    @staticmethod
    def last(placement: Placement, depth: int) -> Combination | None:
        """The combination after the last of `depth` layers."""
        return Combination(depth + 1)

    def fold(self, states_BTD: Tensor) -> Tensor:
        # S states are the input of layer S, counted from 1. After the last layer there is none, so the fold has weights of its own.
        count = states_BTD.shape[-1] // self.size
        # Looked up at every call, because an adapter may have replaced the module.
        combination = self.layers[count - 1].combination if count <= len(self.layers) else self.last_combination
        return states_BTD[..., -self.size :] if combination is None else combination(states_BTD)  # type: ignore[operator]


class DenseFormerLayer(PlacedLayer):
    """DenseFormer: after every p-th layer l the stream becomes Σ_{k≤l} w_k y_k, y_0 the embeddings (arXiv:2402.02622).

    The packed state is y_0 … y_l. The sum is taken where it is read, at the start of the next layer.
    """

    grows = True

    def __init__(self, *args: Any, index: int, placement: Placement, **kwargs: Any) -> None:
        super().__init__(*args, index=index, placement=placement, **kwargs)
        summed = index > 0 and index % placement.stream_period == 0
        self.combination = Combination(index + 1, last=True) if summed else None

    def called_outside(self) -> tuple[nn.Module, ...]:
        return () if self.combination is None else (self.combination,)

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, l·D) in layer l, counted from 1."""
        hidden_states = self.enter(hidden_states)
        attention, feed_forward = self.calls
        stream = hidden_states[..., -self.attention_residual.size :]
        if self.combination is not None:
            stream = self.combination(hidden_states)
        stream = self.attention_residual(stream, attention, *args, **kwargs)
        output = self.feed_forward_residual(stream, feed_forward, *args, **kwargs)
        return torch.cat((hidden_states, output), dim=-1)


class DenseFormerFold(DlclFold):
    """As of DLCL, with a weighted sum after the last layer only if one is due there."""

    @staticmethod
    def last(placement: Placement, depth: int) -> Combination | None:
        return Combination(depth + 1, last=True) if depth % placement.stream_period == 0 else None
