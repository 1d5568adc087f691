"""Residual streams with more than one state. Shapes: B batch, T tokens, D hidden size, S states.

A host's loop passes one tensor from layer to layer. A layer with several states packs them into it along the features,
(B, T, S·D), last the state that the next layer reads. The first layer expands the embeddings. A fold before the final norm
reduces the states to (B, T, D), after whichever layer the stack ends. So gradient checkpointing, caches, device maps and
early exit work as with a single stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mixln.nn.anchored import AnchoredLayer
from mixln.nn.residual import MakeSlot, PlacedLayer, Residual
from mixln.placement import Placement


class Fold(nn.Module):
    """Reduces packed states (B, T, S·D) to the (B, T, D) that the final norm reads if the stack ends there; S = 1 is unchanged.

    :param placement: placement of the whole model.
    :param layers: the model's layers.
    :param norm: builds the module of a norm slot over D features.
    :param size: D.
    """

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, states_BTD: Tensor) -> Tensor:
        return states_BTD if states_BTD.shape[-1] == self.size else self.fold(states_BTD)

    def fold(self, states_BTD: Tensor) -> Tensor:
        raise NotImplementedError


class DualResidual(Residual):
    """x' = stream_out(x + f(x)), y' = y + f(x) on the packed state [y, x] (B, T, 2·D)."""

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param x_BTD: (B, T, 2·D)."""
        second, stream = x_BTD.chunk(2, dim=-1)
        branch = self.branch(stream, function, *args, **kwargs)
        return torch.cat((second + branch, self.end(self.skip(stream) + branch)), dim=-1)


class ResiDualLayer(PlacedLayer):
    """ResiDual: a Post-LN stream x and a Pre-LN stream y, fed by the same branches (arXiv:2304.14802)."""

    sublayer = DualResidual
    states = "two"

    def __init__(self, *args: Any, index: int, **kwargs: Any) -> None:
        super().__init__(*args, index=index, **kwargs)
        self.first = index == 0

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, 2·D), or (B, T, D) in the first layer."""
        # The embeddings, (B, T, D), are the first state of both streams.
        if self.first:
            stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
            hidden_states = torch.cat((stream, stream), dim=-1)
        attention, feed_forward = self.calls
        state = self.attention_residual(hidden_states, attention, *args, **kwargs)
        return self.feed_forward_residual(state, feed_forward, *args, **kwargs)


class ResiDualFold(Fold):
    """x + N(y), the input of the final norm."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.dual_norm = norm(placement.history_norm)

    def fold(self, states_BTD: Tensor) -> Tensor:
        assert self.dual_norm is not None
        second, stream = states_BTD.chunk(2, dim=-1)
        return stream + self.dual_norm(second)


class Combination(nn.Module):
    """Σ_k w_k s_k over S states, (B, T, S·D) → (B, T, D); every weight starts at 1/S, a mean."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((states,), 1 / states))

    def starting_values(self) -> dict[str, float]:
        return {"weight": 1 / self.weight.numel()}

    def forward(self, states_BTD: Tensor) -> Tensor:
        # Product and sum: autocast would run an einsum in bfloat16, and every other residual stream stays in float32.
        return (states_BTD.unflatten(-1, (self.weight.numel(), -1)) * self.weight[:, None]).sum(-2)


class DlclLayer(PlacedLayer):
    """Dynamic linear combination of layers: layer l+1 reads Σ_{k≤l} w_k N_k(y_k), y_0 the embeddings (arXiv:1906.01787).

    The packed state is N_0(y_0) … N_l(y_l). Memory and copying grow with the square of the number of layers.
    """

    states = "many"

    def __init__(self, *args: Any, norm: Any, index: int, placement: Any, **kwargs: Any) -> None:
        super().__init__(*args, norm=norm, index=index, placement=placement, **kwargs)
        self.embedding_history_norm = norm(placement.history_norm) if index == 0 else None
        # Reads y_0 (the embeddings) to y_index: one state more than the layers before it.
        self.combination = Combination(index + 1)
        self.history_norm = norm(placement.history_norm)

    def called_outside(self) -> tuple[nn.Module, ...]:
        return (self.combination,)

    def run(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, l·D) in layer l, counted from 1."""
        if self.embedding_history_norm is not None:
            stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
            hidden_states = self.embedding_history_norm(stream)
        attention, feed_forward = self.calls
        stream = self.attention_residual(self.combination(hidden_states), attention, *args, **kwargs)
        output = self.feed_forward_residual(stream, feed_forward, *args, **kwargs)
        return torch.cat((hidden_states, self.history_norm(output)), dim=-1)


class DlclFold(Fold):
    """The combination that the next layer would read; after the last layer, a separate one."""

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__(placement, layers, norm, size)
        self.last_combination = Combination(len(layers) + 1)
        self.layers = References(layers)

    def fold(self, states_BTD: Tensor) -> Tensor:
        # S states are the input of layer S, counted from 1. After the last layer there is none, so the fold has weights of its own.
        count = states_BTD.shape[-1] // self.size
        # Looked up at every call, because an adapter may have replaced the module.
        combination = self.layers[count - 1].combination if count <= len(self.layers) else self.last_combination
        return combination(states_BTD)  # type: ignore[operator]


class AnchoredFold(Fold):
    """The stream without the embeddings beside it."""

    def fold(self, states_BTD: Tensor) -> Tensor:
        return states_BTD[..., -self.size :]


class References(list[nn.Module]):
    """References to modules that another module owns; a list does not register them a second time.

    In a deep copy of the whole model it refers to the copies, which are made before it.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> References:
        # A copy of the owner of this list alone refers to the original modules.
        return References(memo.get(id(module), module) for module in self)


class Streams(NamedTuple):
    """The layer class of a kind of stream, and the fold after the last layer; `None` for a single stream."""

    layer: type[PlacedLayer]
    fold: type[Fold] | None


STREAMS = {
    "single": Streams(PlacedLayer, None),
    "anchored": Streams(AnchoredLayer, AnchoredFold),
    "resi-dual": Streams(ResiDualLayer, ResiDualFold),
    "dlcl": Streams(DlclLayer, DlclFold),
}
"""`Placement.streams` → classes."""
