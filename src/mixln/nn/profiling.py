"""Gains initialised from a forward pass over a batch of data (Admin, arXiv:2004.08249)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mixln.nn.ramp import fully_grown
from mixln.nn.residual import LearnedGain, PlacedLayer, placed_layers


@torch.no_grad()
def profile(model: nn.Module, batch: Mapping[str, Any]) -> list[float]:
    """Sets the profiled gains of a placed model in one forward pass without dropout; other models are unchanged.

    ω_1 = 1 and ω_{k+1} = √(Var[ω_k ⊙ x_k] + Var[branch k]), with x_k the stream that sublayer k receives and the variance taken over
    all entries: the rule of the authors' code (LiyuanLucasLiu/Transformer-Clinic), which profiles with dropout. A stream that ends in
    a norm has variance 1, so ω_k is about √(Var[x_1] + Σ_{j<k} Var[branch j]), the scale of an unnormalized residual stream.

    :param batch: model inputs; text without padding, since padding would count.
    :returns: ω of every sublayer, in the order of the model; empty if nothing is profiled.
    """
    layers = list(placed_layers(model))
    if not any(_profiled(layer) for layer in layers):
        return []
    omegas: list[float] = []
    skips: list[float] = []
    following, training = 1.0, model.training

    def start(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        omegas.append(following)
        gain = module.skip_gain
        omega = 1.0  # a sublayer of another placement leaves its skip as it is
        if isinstance(gain, LearnedGain) and gain.profiled:
            omega = following
            gain.weight.fill_(omega)
        skips.append(omega**2 * inputs[0].float().var(correction=0).item())

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal following
        branch = output[0] if isinstance(output, tuple) else output
        # The variances of skip and branch add up if the two are uncorrelated.
        following = math.sqrt(skips[-1] + branch.float().var(correction=0).item())

    with ExitStack() as hooks:
        hooks.enter_context(fully_grown(model))
        for layer in layers:
            for (_, residual), branch in zip(layer.sublayers, layer.branches, strict=True):
                hooks.callback(residual.register_forward_pre_hook(start).remove)
                hooks.callback(layer.get_submodule(branch).register_forward_hook(add).remove)
        try:
            # Dropout would multiply the variance of a branch by 1 / (1 − p). Without labels the model computes no loss.
            model.eval()(**{name: value for name, value in batch.items() if name != "labels"})
        finally:
            model.train(training)
    return omegas


def _profiled(layer: PlacedLayer) -> bool:
    gains = (residual.skip_gain for _, residual in layer.sublayers)
    return any(gain is not None and gain.profiled for gain in gains)
