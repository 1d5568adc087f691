"""Small examples, and models that learn them in a few steps: shared by the tests of fine-tuning, rewards and reinforcement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mixln.data.examples import Examples
from mixln.hosts.sources import Source, find_model, tokenizer_of
from mixln.runs.outcome import PostTrainingOutcome
from mixln.training import run
from mixln.training.callbacks import Evaluations
from mixln.training.finetune import FinetuningRun
from mixln.training.post_training_run import with_padding
from mixln.training.reward import RewardRun
from mixln.training.settings import PostTrainingSettings
from tests import decoders

WORDS = ("one", "two", "three", "four", "five", "six")
ROWS = [
    {
        "prompt": f"{WORDS[index // 6]} {WORDS[index % 6]}:",
        "completion": f" {WORDS[(index + 1) % 6]}",
        "chosen": f" {WORDS[(index + 1) % 6]}",
        "rejected": f" {WORDS[(index + 3) % 6]}",
    }
    for index in range(36)
]
COMPLETIONS = Examples(kind="completions", description="words", train=ROWS[6:], held_out=ROWS[:6])
PAIRS = Examples(kind="pairs", description="words", train=ROWS[6:], held_out=ROWS[:6])


def source(folder: Path, placement: str | None = "mix(0.5)", **changes: Any) -> Source:
    """A small decoder in `folder`/model."""
    if not (folder / "model").exists():
        decoders.save(folder / "model", placement, **changes)
    return find_model(str(folder / "model"), cache=folder / "cache")


def settings(**changes: Any) -> PostTrainingSettings:
    return PostTrainingSettings(
        **{"steps": 12, "batch_size": 6, "learning_rate": 3e-3, "precision": "float32", **changes}
    )


def common(
    folder: Path, model: Source, examples: Examples, seed: int = 0, checkpoint_seconds: float = 1e9
) -> dict[str, Any]:
    """What every training here is made of, but for its settings."""
    return {
        "source": model,
        "tokenizer": with_padding(tokenizer_of(model)),
        "examples": examples,
        "folder": folder,
        "seed": seed,
        "checkpoint_seconds": checkpoint_seconds,
    }


def tune(
    folder: Path, model: Source, *, seed: int = 0, checkpoint_seconds: float = 1e9, **changes: Any
) -> PostTrainingOutcome:
    shared = common(folder, model, COMPLETIONS, seed, checkpoint_seconds)
    return run.run(FinetuningRun(settings=settings(**changes), **shared))


def judge(
    folder: Path, model: Source, *, seed: int = 0, checkpoint_seconds: float = 1e9, **changes: Any
) -> PostTrainingOutcome:
    shared = common(folder, model, PAIRS, seed, checkpoint_seconds)
    return run.run(RewardRun(settings=settings(**changes), **shared))


@contextmanager
def cut_at(step: int) -> Iterator[None]:
    """Within it, a training is interrupted after so many steps."""

    class Cut(Evaluations):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            super().on_step_end(args, state, control)
            if state.global_step == step:
                raise KeyboardInterrupt

    with mock.patch.object(run, "Evaluations", Cut), pytest.raises(KeyboardInterrupt):
        yield
