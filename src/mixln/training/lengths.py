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
    for count in cuts(examples[order].tolist(), PASS):
        chosen = order[start : start + count]
        rows = torch.cat([chosen + number * len(examples) for number in range(answers)])
        parts.append({name: column[rows, : int(examples[chosen[0]])] for name, column in batch.items()})
        start += count
    return parts


def cuts(lengths: Sequence[int], cost: int) -> list[int]:
    """The number of rows in each part of the cheapest split.

    :param lengths: of the rows, in tokens, descending.
    :param cost: of a part, in tokens, besides its rows padded to the longest of them.
    """
    best: list[tuple[int, list[int]]] = [(0, [])]
    """For the first n rows: the lowest cost, and the parts."""
    for end in range(1, len(lengths) + 1):
        sums = [(best[start][0] + cost + lengths[start] * (end - start), start) for start in range(end)]
        least, start = min(sums)
        best.append((least, [*best[start][1], end - start]))
    return best[-1][1]
