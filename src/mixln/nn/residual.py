"""The residual algebra, and the layer that reads it off a record. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mixln.placement import Layer, Norm, Sublayer


class Residual(nn.Module):
    """One residual sublayer around a function f:

    y = stream_out( skip_scale · x + branch_out( f( branch_scale · branch_in(x) ) ) )

    Absent norms are `None` and add no parameters. The scales are Python floats: a buffer would be lost on the meta device.
    """

    def __init__(self, record: Sublayer, norm: Callable[[Norm | None], nn.Module | None]) -> None:
        super().__init__()
        self.branch_in = norm(record.branch_in)
        self.branch_out = norm(record.branch_out)
        self.stream_out = norm(record.stream_out)
        self.branch_scale = record.branch_scale
        self.skip_scale = record.skip_scale

    def forward(self, x_BTD: Tensor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """:param function: f; where it returns a tuple, as attention does, its first entry is the branch."""
        branch = x_BTD if self.branch_in is None else self.branch_in(x_BTD)
        if self.branch_scale != 1.0:
            branch = self.branch_scale * branch
        branch = function(branch, *args, **kwargs)
        if isinstance(branch, tuple):
            branch = branch[0]
        if self.branch_out is not None:
            branch = self.branch_out(branch)
        stream = (x_BTD if self.skip_scale == 1.0 else self.skip_scale * x_BTD) + branch
        return stream if self.stream_out is None else self.stream_out(stream)

    def extra_repr(self) -> str:
        return f"branch_scale={self.branch_scale:.6g}, skip_scale={self.skip_scale:.6g}"


class PlacedLayer(GradientCheckpointingLayer):
    """A host's own attention and feed-forward between the two residual sublayers of a record.

    The modules keep the names that they have in the host's layer, so weights, adapters and parallel plans find them.

    :param attention: (name in the host's layer, module).
    :param feed_forward: (name in the host's layer, module).
    :param norm: makes the module for a norm slot over D features, `None` for an empty slot.
    :param stream_in: a norm on the layer's input, before everything: the first layer of Peri-LN has it.
    """

    def __init__(
        self,
        record: Layer,
        *,
        attention: tuple[str, nn.Module],
        feed_forward: tuple[str, nn.Module],
        norm: Callable[[Norm | None], nn.Module | None],
        stream_in: Norm | None = None,
    ) -> None:
        super().__init__()
        self.record = record
        self.names = (attention[0], feed_forward[0])
        self.stream_in = norm(stream_in)
        self.attention_residual = Residual(record.attention, norm)
        self.feed_forward_residual = Residual(record.feed_forward, norm)
        self.add_module(*attention)
        self.add_module(*feed_forward)

    @property
    def attention(self) -> nn.Module:
        return self.get_submodule(self.names[0])

    @property
    def feed_forward(self) -> nn.Module:
        return self.get_submodule(self.names[1])

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """:param hidden_states: (B, T, D); everything else goes to the attention as the host passes it."""
        stream = hidden_states if self.stream_in is None else self.stream_in(hidden_states)
        stream = self.attention_residual(stream, self._modules[self.names[0]], *args, **kwargs)
        return self.feed_forward_residual(stream, self._modules[self.names[1]])
