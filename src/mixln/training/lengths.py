"""Batches of texts of unequal length, split into parts with little padding. Shapes: B batch, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

PASS = 64
"""Cost of one more forward and backward pass on a processor, in tokens. Rows become a separate part only if that saves more padding.
An estimate for the default comparison's model; larger models cost fewer tokens."""


def split(batch: Mapping[str, Tensor], answers: int = 1) -> list[dict[str, Tensor]]:
    """The examples of a batch in parts of similar length, longest first, each padded only to its own longest row.

    :param batch: columns (answers · B, T) with an `attention_mask` whose zeros are at the right.
    :param answers: rows of an example. The first ones of all examples come first, then the second ones, in the parts too.
    """
    mask = batch["attention_mask"]
    assert mask[:, 0].all(), "padding must be at the right"
    lengths = mask.sum(dim=1).view(answers, -1)
    examples = lengths.amax(dim=0)
    order = examples.argsort(descending=True, stable=True)
    parts, start = [], 0
    for count in cuts(examples[order].tolist()):
        chosen = order[start : start + count]
        rows = torch.cat([chosen + number * len(examples) for number in range(answers)])
        parts.append({name: column[rows, : int(examples[chosen[0]])] for name, column in batch.items()})
        start += count
    return parts


def cuts(lengths: Sequence[int], cost: int | None = None) -> list[int]:
    """How many rows each part has, so that padded tokens and :data:`PASS` a part sum to the least.

    :param lengths: of the rows, descending.
    :param cost: by default :data:`PASS`.
    """
    cost = PASS if cost is None else cost
    best: list[tuple[int, list[int]]] = [(0, [])]
    """For the first n rows: the least sum, and the parts."""
    for end in range(1, len(lengths) + 1):
        sums = [(best[start][0] + cost + lengths[start] * (end - start), start) for start in range(end)]
        least, start = min(sums)
        best.append((least, [*best[start][1], end - start]))
    return best[-1][1]
