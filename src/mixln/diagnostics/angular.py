"""Angular distance between all pairs of depths. Shapes: B batch, T tokens, N selected tokens, S states, D hidden size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixln.diagnostics.results import Angular
from mixln.diagnostics.stack import Batch, Stack, evaluating, real_tokens, recording
from mixln.errors import DataError

CHUNK = 128
"""Tokens whose (S, S) cosines are computed at once; bounds the memory."""


@torch.no_grad()
def angular_distance(stack: Stack, batches: Iterable[Batch], *, convention: Literal["all", "last"] = "all") -> Angular:
    """The mean angle between the residual stream at any two depths.

    d(xˡ, xˡ⁺ⁿ) = arccos( xˡ·xˡ⁺ⁿ / ‖xˡ‖‖xˡ⁺ⁿ‖ ) / π, averaged over tokens (arXiv:2412.13795, equation 8). The states are those of
    the residual stream itself, so the last one is the last layer's output before the final norm. Of several streams, they are what the
    next layer, or the final norm, would read.

    :param batches: inputs of the model; `attention_mask` (B, T) marks padding with 0. Memory does not grow with their number.
    :param convention: averages over `all` tokens, or over the `last` token of each sequence only.
    :raises CheckpointError: if a state is not finite; names the first such layer.
    :raises DataError: if all tokens are padding.
    """
    depth = len(stack)
    angle = torch.zeros(depth + 1, depth + 1, dtype=torch.float64)
    influence = torch.zeros(depth, dtype=torch.float64)
    tokens = 0
    with evaluating(stack.model):
        for batch in batches:
            with recording(stack, batch) as record:
                stack.run(batch)
            states = [record.read(index) for index in range(depth + 1)]
            keep_BT = real_tokens(batch, states[0])
            if convention == "last":
                keep_BT = last_only(keep_BT)
            flat = [state[keep_BT] for state in states]
            for start in range(0, len(flat[0]), CHUNK):
                chunk_NSD = torch.stack([state[start : start + CHUNK] for state in flat], dim=1)
                unit_NSD = F.normalize(_float64(chunk_NSD), dim=-1)
                # Rounding can bring a cosine just above 1, where arccos is NaN.
                cosine_NSS = torch.bmm(unit_NSD, unit_NSD.transpose(1, 2)).clamp(-1, 1)
                angle += cosine_NSS.arccos().sum(dim=0).cpu() / torch.pi
                influence += (1 - cosine_NSS.diagonal(offset=1, dim1=1, dim2=2)).sum(dim=0).cpu()
                tokens += len(cosine_NSS)
    if tokens == 0:
        raise DataError("angular distance needs at least one token that is not padding, got none; give more text")
    mean = (angle / tokens).tolist()
    return Angular(
        distance=tuple(tuple(row[index + 1 :]) for index, row in enumerate(mean[:-1])),
        influence=tuple((influence / tokens).tolist()),
        tokens=tokens,
        convention=convention,
    )


def _float64(states: Tensor) -> Tensor:
    # In float32, rounding of the cosine turns an angle of 0 into about 1e-4 π. MPS has no float64.
    return states.float() if states.device.type == "mps" else states.double()


def last_only(mask_BT: Tensor) -> Tensor:
    """Keeps only the last set position of each sequence. Padding may be on either side."""
    positions = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (mask_BT * (positions + 1)).argmax(dim=1)
    return (positions == last_B.unsqueeze(1)) & mask_BT
