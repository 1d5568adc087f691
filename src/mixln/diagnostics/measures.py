"""What a model's performance is: one figure a sequence, so that a difference has an interval. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixln.data.packing import IGNORED
from mixln.diagnostics.stack import Batch, Stack

CHUNK = 512
"""Tokens whose logits are held at once: those of a large vocabulary then stay in the cache, and memory is bounded."""


class Measure(ABC):
    """A measure of a model on batches.

    :param name: what it is, for example `loss`.
    :param unit: its unit.
    :param better: whether lower or higher is better.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"] = "lower"

    @abstractmethod
    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Runs the model once; what it returns is given to :meth:`rows`. First dimension B."""

    @abstractmethod
    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        """The sum of the measure over each sequence (B,), float64.

        :param result: what :meth:`run` gave of the model as it is changed.
        :param whole: what it gave of the whole model.
        """

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """How many tokens (or images) each sequence's sum is over (B,), float64."""


class TokenLoss(Measure):
    """Cross-entropy of the predicted tokens, nats per token.

    :param shift: 1 where position t predicts token t + 1 (causal), 0 where it predicts its own (masked).
    """

    name, unit = "loss", "nats per token"

    def __init__(self, *, shift: int) -> None:
        self.shift = shift

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Loss summed over each sequence (B,), float64."""
        targets_BT = batch["labels"][:, self.shift :]
        used_BT = targets_BT != IGNORED
        head = stack.head
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
    """How far the mean of the last hidden states turns away from the whole model's: 1 − cosine, one figure a sequence or image."""

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
        # 1 − cos = ‖a − b‖² / 2 of the unit vectors: exact where both are equal.
        a, b = (F.normalize(states.cpu().double(), dim=-1) for states in (result, whole))
        return (a - b).square().sum(dim=-1) / 2

    def weights(self, batch: Batch) -> Tensor:
        return torch.ones(len(next(iter(batch.values()))), dtype=torch.float64)


class ImageLoss(Measure):
    """Cross-entropy of the images' classes, nats per image."""

    name, unit = "loss", "nats per image"

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """Loss of each image (B,)."""
        return F.cross_entropy(stack.logits(batch).float(), batch["labels"], reduction="none").cpu().double()

    def rows(self, result: Tensor, whole: Tensor, batch: Batch) -> Tensor:
        return result

    def weights(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), dtype=torch.float64)


class ImageAccuracy(ImageLoss):
    """Share of the images whose most probable class is right."""

    name, unit, better = "accuracy", "share of images", "higher"

    def run(self, stack: Stack, batch: Batch) -> Tensor:
        """1 for each image that is right, else 0 (B,)."""
        return (stack.logits(batch).argmax(-1) == batch["labels"]).cpu().double()
