"""Writes a copy of a model with one more dose of 4-bit rounding noise, to see what the first dose may have cost.

A weight that was rounded to 4 bits (Q4_1: blocks of 32 along the input, 16 levels from the block's least to its largest
weight) is off by an error that is about uniform over one level. The original is not to be had, but noise of the same size
can be added once more: what a score loses by it is about what it lost before.

    python examples/rounding_noise.py MODEL OUT [SEED]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mixln.hosts.sources import find_model, load, tokenizer_of

BLOCK, LEVELS = 32, 16


@torch.no_grad()
def main(model: str, out: str, seed: int = 0) -> None:
    source = find_model(model, cache=Path("~/.cache/mixln").expanduser())
    loaded = load(source, whole=True)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in loaded.named_parameters():
        if weight.ndim == 2 and ".layers." in f".{name}" and weight.shape[1] % BLOCK == 0:
            blocks = weight.view(weight.shape[0], -1, BLOCK)
            level = (blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)) / (LEVELS - 1)
            blocks += level * (torch.rand(blocks.shape, generator=generator) - 0.5)
    loaded.save_pretrained(out)
    tokenizer_of(source).save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
