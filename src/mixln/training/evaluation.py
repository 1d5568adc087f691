"""Held-out loss, exactly. Shapes: B batch, T tokens, V vocabulary."""

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

    :param loss: Σ −log p / tokens over every predicted token of the set, nats per token.
    :param tokens: predicted tokens.
    """

    loss: float
    tokens: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> HeldOutLoss:
    """The token-weighted mean loss over all batches: every token counts the same, whatever the batches' sizes or padding.

    Of several processes each brings batches of its own, equally many, and all get the mean over those of all.

    :param model: a causal language model; it is run in evaluation mode and left in the mode it was in.
    :param batches: `input_ids` and `labels` (B, T); label −100 marks a position that is not predicted. Position t predicts label
        t + 1, but where there are `shift_labels` (B, T), label t of these.
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
    # Read from the device at the end, and added up in float64, which not every device has.
    found = torch.stack([torch.stack(part).cpu().double().sum() for part in (sums, counts)])
    loss, count = ranks.total(found.to(_reducible(model))).tolist()
    return HeldOutLoss(loss=loss / count, tokens=int(count))


def _summed_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    config: Any = model.config
    more = (
        {"output_router_logits": False} if hasattr(config, "output_router_logits") else {}
    )  # else the balance is added
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
    """Where a sum over processes can be taken: on their GPUs, or else the processors, which have float64 always."""
    device = next(model.parameters()).device
    return device if device.type == "cuda" else torch.device("cpu")
