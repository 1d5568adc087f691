"""What the diagnostics cost, as ratios of interleaved runs on the same tokens.

    python benchmarks/diagnostics.py                 # a Llama of 250 million parameters with random weights
    python benchmarks/diagnostics.py MODEL           # another preset, or any model that `mixln diagnose` takes

Prints, as medians over the rounds:
- all-pairs angular distance against forward passes to the loss over the same tokens;
- the performance drop of every layer (Pre-LN: both definitions are one) against as many forward passes to the loss;
- the same against the obvious way: for each layer load the model again, delete the layer, take the loss.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from mixln.compare.sources import find
from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.measures import TokenLoss
from mixln.diagnostics.stack import find_stack
from mixln.hosts import from_config
from mixln.hosts.sources import load
from mixln.memory import keep_freed_memory
from mixln.presets import PRESETS, model_config
from mixln.quiet import quiet
from mixln.training.evaluation import evaluate

ROUNDS = 2
ROWS, LENGTH = 8, 256


def main(name: str = "250m") -> None:
    keep_freed_memory()
    cache = Path("~/.cache/mixln").expanduser()
    model = (
        from_config(model_config(name), placement="pre").eval() if name in PRESETS else load(find(name, cache=cache)[0])
    )
    stack, measure = find_stack(model), TokenLoss(shift=1)
    depth = len(stack)
    ids = torch.randint(0, model.config.vocab_size, (ROWS, LENGTH))
    batches = [{"input_ids": ids, "labels": ids}]
    with tempfile.TemporaryDirectory() as folder, quiet():
        model.save_pretrained(folder)

        def obvious() -> None:
            for index in range(depth):
                pruned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
                layers = find_stack(pruned).layers
                kept = [layer for other, layer in enumerate(layers) if other != index]
                del layers[:]
                layers.extend(kept)
                evaluate(pruned, batches)

        runs: dict[str, Callable[[], object]] = {
            "forward": lambda: evaluate(model, batches),
            "angular": lambda: angular_distance(stack, batches),
            "drops": lambda: performance_drop(stack, batches, measure),
            "obvious": obvious,
        }
        times: dict[str, list[float]] = {run: [] for run in runs}
        evaluate(model, batches)
        for number in range(ROUNDS):
            for run, call in runs.items():
                if run == "obvious" and number:
                    continue  # it is slow, and once is enough
                began = time.perf_counter()
                call()
                times[run].append(time.perf_counter() - began)
    took = {run: statistics.median(values) for run, values in times.items()}
    print(f"{name}: {depth} layers, {ids.numel()} tokens, a forward pass to the loss {took['forward']:.2f} s")
    print(f"angular distance of all pairs: {took['angular'] / took['forward']:.2f} forward passes")
    drops = took["drops"] / took["forward"] / depth
    print(f"drop of every layer: {drops:.2f} forward passes a layer")
    print(f"the obvious way takes {took['obvious'] / took['drops']:.1f} times as long")


if __name__ == "__main__":
    main(*sys.argv[1:2])
