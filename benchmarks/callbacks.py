"""What the recording of gradient norms costs: the time inside the callback against the training step that it sits in.

    python benchmarks/callbacks.py

Prints medians over the same steps, the cost of one record as a share of a step, and the cost at the rate of the default
comparison (one record in three steps).
"""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace

import torch
from transformers import TrainerControl, TrainerState

import mixln
from mixln.presets import model_config
from mixln.training.callbacks import GradientNorms

REPEATS = 40
RECORD_EVERY = 3


def main() -> None:
    torch.set_num_threads(1)
    model = mixln.from_config(model_config("tiny"), placement="mix(0.25)")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    callback = GradientNorms(lambda row: None)
    arguments = SimpleNamespace(logging_first_step=True)
    state, control = TrainerState(logging_steps=1), TrainerControl()
    callback.on_train_begin(arguments, state, control, model=model)  # type: ignore[arg-type]
    inputs = torch.randint(0, model.config.vocab_size, (8, 128))

    def step() -> tuple[float, float]:
        began = time.perf_counter()
        model(input_ids=inputs, labels=inputs).loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        callback_began = time.perf_counter()
        callback.on_pre_optimizer_step(arguments, state, control, model=model)  # type: ignore[arg-type]
        callback.on_log(arguments, state, control, logs={"grad_norm": norm.item()})  # type: ignore[arg-type]
        in_callback = time.perf_counter() - callback_began
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began - in_callback, in_callback

    for _ in range(5):
        step()
    steps, callbacks = zip(*(step() for _ in range(REPEATS)), strict=True)
    plain, extra = statistics.median(steps), statistics.median(callbacks)
    print(f"a step without it {1e3 * plain:.1f} ms, one record of gradient norms {1e3 * extra:.2f} ms")
    print(
        f"cost of one record: {extra / plain:.1%} of a step; at one in {RECORD_EVERY} steps: {extra / plain / RECORD_EVERY:.1%}"
    )


if __name__ == "__main__":
    main()
