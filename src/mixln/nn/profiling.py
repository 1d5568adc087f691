"""Gains that start at what a pass over a batch of data measures (Admin, arXiv:2004.08249)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.residual import LearnedGain, PlacedLayer, placed_layers


@torch.no_grad()
def profile(model: nn.Module, batch: Mapping[str, Any]) -> list[float]:
    """Sets the profiled gains of a placed model, by one forward pass without dropout; another model is left alone.

    The first sublayer's ω stays 1. Those of the k-th are √(Var[x₀] + Σ_{j<k} Var[branch j]), x₀ what enters the first
    sublayer and the variance over all entries, each set before its sublayer runs: so the skip of every sublayer has about
    the variance that an unnormalized residual stream would have there. The rule is from memory of the paper and its code.

    :param batch: inputs of the model; text without padding, as padding would count.
    :returns: ω of every sublayer, attention and feed-forward of the first layer first; empty if nothing is profiled.
    """
    layers = list(placed_layers(model))
    if not any(_profiled(layer) for layer in layers):
        return []
    total, found, training = 0.0, [], model.training

    def start(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        if not found:
            total = inputs[0].float().var(correction=0).item()
        found.append(math.sqrt(total) if found else 1.0)
        gain = module.skip_gain
        if isinstance(gain, LearnedGain) and gain.profiled:
            gain.weight.fill_(found[-1])

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        branch = output[0] if isinstance(output, tuple) else output
        total += branch.float().var(correction=0).item()

    with ExitStack() as hooks:
        for layer in layers:
            for (_, residual), branch in zip(layer.sublayers, layer.branches, strict=True):
                hooks.callback(residual.register_forward_pre_hook(start).remove)
                hooks.callback(layer.get_submodule(branch).register_forward_hook(add).remove)
        try:
            model.eval()(**{name: value for name, value in batch.items() if name != "labels"})
        finally:
            model.train(training)
    return found


def _profiled(layer: PlacedLayer) -> bool:
    gains = (residual.skip_gain for _, residual in layer.sublayers)
    return any(gain is not None and gain.profiled for gain in gains)
