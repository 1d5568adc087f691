"""The residual stream by depth. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mixln.diagnostics.profile import LayerProfile
from mixln.nn.residual import PlacedLayer, Residual


@torch.no_grad()
def residual_variance(model: nn.Module, batch: Mapping[str, Any], *, step: int) -> LayerProfile:
    """Variance over features of the residual stream where it leaves each sublayer, mean over tokens, in float32.

    σ² = mean over tokens of Var_D(x), the σ_x′ whose growth with depth the Mix-LN paper blames (arXiv:2412.13795, section 2.1).

    :param model: a placed model; it is run in evaluation mode and left in the mode it was in.
    :param batch: inputs of the model; `input_ids` is (B, T).
    """
    seen: dict[Residual, float] = {}

    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, Residual)
        seen[module] = output.float().var(dim=-1, correction=0).mean().item()

    layers = list(placed_layers(model))
    was_training = model.training
    with ExitStack() as stack:
        for layer in layers:
            for residual in (layer.attention_residual, layer.feed_forward_residual):
                stack.callback(residual.register_forward_hook(record).remove)
        model.eval()
        model(**batch)
        model.train(was_training)
    return LayerProfile(
        step=step,
        attention=tuple(seen[layer.attention_residual] for layer in layers),
        feed_forward=tuple(seen[layer.feed_forward_residual] for layer in layers),
    )


def placed_layers(model: nn.Module) -> Iterator[PlacedLayer]:
    """The placed layers of a model, first layer first."""
    return (module for module in model.modules() if isinstance(module, PlacedLayer))
