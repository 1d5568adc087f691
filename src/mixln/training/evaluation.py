"""Exact held-out loss. Shapes: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixln.data.packing import IGNORED
from mixln.nn.loss import without_logits
from mixln.training import ranks


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """A held-out loss.

    :param loss: Σ −log p / tokens over all predicted tokens, nats per token.
    :param tokens: number of predicted tokens.
    """

    loss: float
    tokens: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> HeldOutLoss:
    """The token-weighted mean loss over all batches: every token has the same weight, regardless of batch size and padding.

    With several processes, each passes the same number of batches of its own, and all receive the mean over all processes.

    :param model: a causal language model; run in evaluation mode, then returned to its previous mode.
    :param batches: `input_ids` and `labels` (B, T); label −100 marks a position that is not predicted. Position t predicts label
        t + 1, or label t of `shift_labels` (B, T) if these are given.
    """
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    was_training = model.training
    model.eval()
    with without_logits(model) as able:
        for batch in batches:
            sums.append(_summed_loss(model, batch) if able else _from_logits(model, batch))
            counts.append((_targets(batch) != IGNORED).sum())
    model.train(was_training)
    # Transferred once at the end, and summed in float64 on the CPU, because not every device supports it.
    sums_and_counts = torch.stack([torch.stack(part).cpu().double().sum() for part in (sums, counts)])
    loss, count = ranks.total(sums_and_counts.to(_reducible(model))).tolist()
    return HeldOutLoss(loss=loss / count, tokens=int(count))


def _summed_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    config: Any = model.config
    # With router logits, the loss would include the load-balancing term.
    more = {"output_router_logits": False} if hasattr(config, "output_router_logits") else {}
    inputs = {name: batch[name] for name in ("input_ids", "labels", "shift_labels") if name in batch}
    return model(**inputs, use_cache=False, num_items_in_batch=1, **more).loss


def _from_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits_BTV = model(input_ids=batch["input_ids"], use_cache=False).logits
    targets = _targets(batch)
    logits = logits_BTV[:, : targets.shape[1]].flatten(0, 1).float()
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")


def _targets(batch: Mapping[str, Tensor]) -> Tensor:
    """Labels at the positions that predict them, (B, T) or (B, T − 1)."""
    return batch["shift_labels"] if "shift_labels" in batch else batch["labels"][:, 1:]


def _reducible(model: nn.Module) -> torch.device:
    """The device for a float64 sum over processes: the GPU under NCCL, else the CPU, which always supports float64."""
    device = next(model.parameters()).device
    return device if device.type == "cuda" else torch.device("cpu")
