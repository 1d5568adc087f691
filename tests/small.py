"""A small text, a small model and small trainings: the tests of data, training, comparison and command line share them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig

from mixln.data.preparation import prepare
from mixln.data.settings import TextSettings
from mixln.data.text import Text
from mixln.runs.metrics import read_metrics
from mixln.runs.outcome import Outcome
from mixln.training.compiling import Compile
from mixln.training.language_modelling import LanguageObjective
from mixln.training.pretraining import PretrainingConfig, PretrainingRun
from mixln.training.run import run
from mixln.training.settings import EngineSettings, Parallel, TrainSettings

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LENGTH = 16
"""Tokens of a sequence."""
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def documents(count: int = 40, words: int = 80, *, seed: int = 0) -> list[str]:
    """Texts that count upwards and now and then jump: whoever looks at the word before beats the word frequencies."""
    draw, made = random.Random(seed), []
    for _ in range(count):
        at, chosen = draw.randrange(len(WORDS)), []
        for _ in range(words):
            at = draw.randrange(len(WORDS)) if draw.random() < 0.1 else (at + 1) % len(WORDS)
            chosen.append(WORDS[at])
        made.append(" ".join(chosen))
    return made


def write_folder(folder: Path, texts: list[str]) -> Path:
    """One .txt a document, in the order of their names."""
    folder.mkdir(parents=True)
    for index, text in enumerate(texts):
        (folder / f"{index:03}.txt").write_text(text, "utf-8")
    return folder


def write_config(path: Path, **changes: Any) -> Path:
    """A config.json of the small Llama."""
    path.write_text(json.dumps({"model_type": "llama", **SIZES, **changes}))
    return path


def config(**changes: Any) -> PreTrainedConfig:
    return LlamaConfig(**{**SIZES, **changes})


def prepared(folder: Path, *, texts: list[str] | None = None, **settings: Any) -> Text:
    """The small text, read from `folder`/text and packed into `folder`/cache."""
    data = folder / "text"
    if not data.exists():
        write_folder(data, documents() if texts is None else texts)
    chosen = {"sequence_length": LENGTH, "held_out": 0.1, **settings}
    return prepare(TextSettings(data=str(data), **chosen), vocabulary_size=300, tokens=10_000, cache=folder / "cache")


def train(
    text: Text,
    folder: Path,
    placement: str = "pre",
    *,
    learning_rate: float = 3e-3,
    seed: int = 0,
    checkpoint_seconds: float = 1e9,
    activation_checkpointing: bool = False,
    data_workers: int = 0,
    compile: Compile = "off",
    model: PreTrainedConfig | None = None,
    parallel: Parallel = "ddp",
    **settings: Any,
) -> Outcome:
    """A training of a few steps in this process, or in those that torchrun started."""
    chosen = PretrainingConfig(
        model=model or config(),
        placement=placement,
        init="normal",
        learning_rate=learning_rate,
        seed=seed,
        settings=TrainSettings(**{"steps": 6, "batch_size": 4, "precision": "float32", **settings}),
        engine=EngineSettings(
            activation_checkpointing=activation_checkpointing,
            checkpoint_seconds=checkpoint_seconds,
            data_workers=data_workers,
            compile=compile,
        ),
        parallel=parallel,
    )
    return run(PretrainingRun(objective=LanguageObjective(text), config=chosen, folder=folder))


def column(folder: Path, name: str) -> list[Any]:
    """One figure of a training's metrics, in the order of the rows that have it."""
    return [row[name] for row in read_metrics(folder / "metrics.jsonl") if name in row]
