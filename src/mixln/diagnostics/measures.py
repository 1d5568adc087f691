"""Measures of a model's performance, one value per sequence, so that differences have confidence intervals.

Shapes: B batch, T tokens, N predicted tokens, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixln.data.packing import IGNORED
from mixln.diagnostics.stack import Batch, Stack

CHUNK = 512
"""Tokens whose logits are in memory at once. Bounds the memory, and with a large vocabulary keeps the logits in the CPU cache."""


class Measure(ABC):
    """A measure of a model on batches.

    :param name: for example `loss`.
    :param unit: for example `nats per token`.
    :param better: whether lower or higher is better.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"] = "lower"

    @abstractmethod
    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Runs the model once. The result is passed to :meth:`rows`; its first dimension is B."""

    @abstractmethod
    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        """The sum of the measure over each sequence (B,), float64.

        :param result: result of :meth:`run` for the model without some of its layers.
        :param whole: result of :meth:`run` for the whole model.
        """

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """The number of tokens (or images) that each sequence's sum runs over (B,), float64."""


class TokenLoss(Measure):
    """Cross-entropy of the predicted tokens, nats per token.

    :param shift: 1 if position t predicts token t + 1 (causal), 0 if it predicts token t (masked).
    """

    name, unit = "loss", "nats per token"

    def __init__(self, *, shift: int) -> None:
        self.shift = shift

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Loss summed over each sequence (B,), float64."""
        targets_BT = batch["labels"][:, self.shift :]
        used_BT = targets_BT != IGNORED
        head = stack.head
        # With a plain head, logits are computed from the hidden states chunk by chunk; (N, vocabulary) may not fit into memory.
        states = stack.logits(batch) if head is None else stack.run(batch)
        states_ND, targets_N = states[:, : targets_BT.shape[1]][used_BT], targets_BT[used_BT]
        losses = [
            F.cross_entropy((part if head is None else head(part)).float(), target, reduction="none")
            for part, target in zip(states_ND.split(CHUNK), targets_N.split(CHUNK), strict=True)
        ]
        row = used_BT.nonzero()[:, 0]
        return torch.zeros(len(targets_BT), dtype=torch.float64).index_add(
            0, row.cpu(), torch.cat(losses).cpu().double()
        )

    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        return result

    def weights(self, batch: Batch) -> Tensor:
        return (batch["labels"][:, self.shift :] != IGNORED).sum(dim=1).cpu().double()


class EmbeddingChange(Measure):
    """1 − cosine between the mean last hidden states of the changed and of the whole model, per sequence or image."""

    name, unit = "embedding change", "1 − cosine"

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Mean last hidden state of each sequence (B, D), padding excluded."""
        last_BTD = stack.run(batch).float()
        mask_BT = batch.get("attention_mask")
        if mask_BT is None:
            return last_BTD.mean(dim=1)
        weight = mask_BT.float().unsqueeze(-1)
        return (last_BTD * weight).sum(dim=1) / weight.sum(dim=1)

    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        # For unit vectors 1 − cos = ‖a − b‖² / 2, which is exactly 0 if both are equal; 1 − a·b would leave rounding errors.
        a, b = (F.normalize(states.cpu().double(), dim=-1) for states in (result, whole))
        return (a - b).square().sum(dim=-1) / 2

    def weights(self, batch: Batch) -> Tensor:
        return torch.ones(len(next(iter(batch.values()))), dtype=torch.float64)


class ImageLoss(Measure):
    """Cross-entropy of the image classes, nats per image."""

    name, unit = "loss", "nats per image"

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Loss of each image (B,)."""
        return F.cross_entropy(stack.logits(batch).float(), batch["labels"], reduction="none").cpu().double()

    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        return result

    def weights(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), dtype=torch.float64)


class ImageAccuracy(ImageLoss):
    """Share of the images whose most probable class is correct."""

    name, unit, better = "accuracy", "share of images", "higher"

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """1 for each correctly classified image, else 0 (B,)."""
        return (stack.logits(batch).argmax(-1) == batch["labels"]).cpu().double()
