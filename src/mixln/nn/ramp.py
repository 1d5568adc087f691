"""Modules that depend on the optimizer step, and branches that grow with it (ProRes, arXiv:2603.05369)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixln.errors import PlacementWarning, SettingsError


class Stepped:
    """Something that changes with the optimizer step."""

    def to_step(self, step: int) -> None:
        """:param step: number of optimizer steps so far."""
        raise NotImplementedError


class RampedScale(nn.Module, Stepped):
    """min(t / ramp, 1) · x, with t the number of optimizer steps so far.

    The same in training and evaluation: a model computes what it was trained to compute up to this step. t is a buffer of the
    checkpoint; :func:`set_step` moves it.

    :param ramp: steps until the factor is 1, at least 1.
    """

    step: Tensor

    def __init__(self, ramp: int) -> None:
        super().__init__()
        self.ramp = ramp
        self.moved = False
        """Whether something has set the step of this object."""
        # An integer: casting a model to bfloat16 would round a step above 256.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def starting_values(self) -> dict[str, float]:
        return {"step": 0}

    def to_step(self, step: int) -> None:
        self.moved = True
        self.step.fill_(step)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.training and not self.moved and not torch.compiler.is_compiling():
            self._warn()
        return (self.step / self.ramp).clamp(max=1.0).to(x_BTD.dtype) * x_BTD

    def _warn(self) -> None:
        self.moved = True  # once
        if self.step.is_meta or self.step >= self.ramp:
            return
        warnings.warn(
            f"training with branches whose step stands at {self.step.item()} of {self.ramp}, because nothing moves it; add "
            "mixln.StepCallback() to the callbacks of transformers' Trainer, or call mixln.set_step(model, step) before each step",
            PlacementWarning,
            stacklevel=2,
        )

    def extra_repr(self) -> str:
        return f"ramp={self.ramp}"


def set_step(model: nn.Module, step: int) -> None:
    """Sets the number of optimizer steps so far: branches of `prores+…` grow, matrices of `ngpt` become unit vectors again.

    To be called before the first step and after each; other models are unchanged.

    :param step: at least 0; before the first step it is 0.
    :raises SettingsError: if it is below 0.
    """
    if step < 0:
        raise SettingsError(f"step must be at least 0, got {step}")
    for module in model.modules():
        if isinstance(module, Stepped):
            module.to_step(step)


def step_of(model: nn.Module) -> int:
    """The number of optimizer steps at which the branches of `prores+…` stand; 0 for other models."""
    return max((int(scale.step) for scale in _ramps(model)), default=0)


@contextmanager
def fully_grown(model: nn.Module) -> Iterator[None]:
    """Sets every factor to 1, and restores the steps on exit."""
    steps = [(scale, scale.step.clone()) for scale in _ramps(model)]
    for scale, _ in steps:
        scale.step.fill_(scale.ramp)
    try:
        yield
    finally:
        for scale, step in steps:
            scale.step.copy_(step)


def _ramps(model: nn.Module) -> Iterator[RampedScale]:
    return (module for module in model.modules() if isinstance(module, RampedScale))
