"""The loss without all logits, forward and backward, against cross-entropy over all of them and against torch's own operator.

    python benchmarks/loss.py             # the default comparison's model, and 71M's: a minute on one core

Medians of interleaved repeats in milliseconds, and their ratio to the usual loss, by how many tokens' logits are made at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mixln.memory import keep_freed_memory
from mixln.nn import loss

SHAPES = {"tiny": (1024, 96, 2048), "71m": (2048, 512, 32_000)}
"""Tokens, hidden size, vocabulary."""


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    for name, shape in SHAPES.items():
        medians = race(*shape)
        print(name, *(f"{kind} {1e3 * t:.0f} ms ({t / medians['usual']:.2f})" for kind, t in medians.items()), sep="  ")


def race(tokens: int, size: int, words: int) -> dict[str, float]:
    """Median seconds of each way."""
    states = torch.randn(1, tokens, size, requires_grad=True)
    head = nn.Linear(size, words, bias=False)
    labels = torch.randint(words, (1, tokens))

    def usual() -> None:
        logits = head(states)[0, :-1]
        F.cross_entropy(logits, labels[0, 1:]).backward()

    def torchs() -> None:
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=512)
        F.linear_cross_entropy(states[0, :-1], head.weight, labels[0, 1:], options=options).backward()

    def ours(rows: int) -> Callable[[], None]:
        def run() -> None:
            loss.ROWS = rows
            loss.causal_loss(states, head, labels).backward()

        return run

    runs = {"usual": usual, "torch's, 512": torchs, **{str(rows): ours(rows) for rows in (128, 256, 512, 1024)}}
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for repeat in range(8):
        for kind, run in runs.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[kind].append(time.perf_counter() - began)
            head.zero_grad()
            states.grad = None
    return {kind: statistics.median(times) for kind, times in seconds.items()}


if __name__ == "__main__":
    main()
