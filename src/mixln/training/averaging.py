"""Exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

AVERAGE = "average.safetensors"
"""File with the EMA in a checkpoint."""


class Averaging(TrainerCallback):
    """EMA of the weights: after every step, average ← d · average + (1 − d) · weights, starting at the initial weights.

    :param model: the model to average; within :meth:`swapped` it has the averaged weights.
    :param decay: d; capped at (1 + step) / (10 + step), so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.weights = dict(model.named_parameters())
        self.decay = decay
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        current = [weight.detach() for weight in self.weights.values()]
        get_ema_multi_avg_fn(decay)(list(self.average.values()), current, torch.tensor(state.global_step))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, folder: Path) -> None:
        """Writes the EMA to a checkpoint."""
        save_file({name: value.contiguous() for name, value in self.average.items()}, folder / AVERAGE)

    def load(self, folder: Path) -> None:
        """Reads the EMA that :meth:`save` wrote."""
        for name, value in load_file(folder / AVERAGE).items():
            self.average[name].copy_(value)

    def _swap(self) -> None:
        for name, weight in self.weights.items():
            current: Tensor = weight.data  # exchanges storages: a copy would need a third set of weights in memory
            weight.data = self.average[name]
            self.average[name] = current
