"""The common part of fine-tuning, reward modelling and RL: a folder with metrics, checkpoints, the model and the result."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from mixln.data.examples import Examples
from mixln.errors import DataError
from mixln.hosts.companions import write_companion
from mixln.hosts.configs import positions
from mixln.hosts.sources import Source, identity
from mixln.quiet import quiet
from mixln.records import to_json
from mixln.runs.checkpoints import final_folder
from mixln.runs.folder import RunKind
from mixln.runs.metrics import METRICS, MetricsFile
from mixln.runs.outcome import PostTrainingOutcome, ValueWithError
from mixln.runs.schema import Schema
from mixln.training.callbacks import ProgressLog
from mixln.training.run import Schedule, TrainingRun, TrainingSummary
from mixln.training.settings import PostTrainingSettings
from mixln.training.trainers import FairTrainer

S = TypeVar("S", bound=PostTrainingSettings, covariant=True)
TUNING_RUN = RunKind(
    noun="training",
    result=Schema(kind="tuning-result", file="tuning-result.json", record=PostTrainingOutcome, former="result.json"),
)
MODEL, ADAPTER, CHECKPOINTS = "model", "adapter", "checkpoints"
"""Subfolders of a training: the trained model, the unmerged adapter, and the checkpoints for resuming."""


@dataclass(frozen=True, kw_only=True)
class PostTrainingRun(TrainingRun[FairTrainer, PostTrainingOutcome], Generic[S]):
    """Post-training of an existing model: the base of fine-tuning, reward modelling and reinforcement learning.

    :param source: a causal language model.
    :param tokenizer: the model's, with a padding token.
    :param folder: folder of this training; the trained model is written to its subfolder `model`.
    :param seed: determines the order of the examples, the values of new weights, and sampling.
    :param checkpoint_seconds: time between two checkpoints, seconds.
    """

    kind: ClassVar[str]
    evaluates_first: ClassVar[bool] = True

    source: Source
    tokenizer: PreTrainedTokenizerBase
    examples: Examples
    settings: S
    folder: Path
    seed: int
    checkpoint_seconds: float = 60.0

    def asked(self) -> dict[str, Any]:
        """Everything that the outcome depends on, to detect another request in the same folder."""
        return {
            "kind": self.kind,
            "settings": to_json(self.settings),
            "seed": self.seed,
            "model": identity(self.source),
            "examples": self.examples.fingerprint,
        }

    def leaves(self, result: PostTrainingOutcome) -> tuple[str, ...]:
        """Names of the files and folders of the result, for :meth:`~mixln.runs.folder.RunFolder.once`."""
        models = () if result.status == "diverged" else (MODEL, *([ADAPTER] if self.settings.lora else []))
        return (f"{CHECKPOINTS}/{METRICS}", *models)

    @abstractmethod
    def steps(self) -> int:
        """Number of optimizer steps."""

    @property
    def tokens_per_step(self) -> float:
        """Approximate tokens per optimizer step; 0 if unknown."""
        return 0.0

    def begin(self) -> None:
        """Writes the tokenizer to a temporary folder, so that one that cannot be saved fails before the training, not after it."""
        with quiet(), TemporaryDirectory() as trial:
            write_companion(self.tokenizer, Path(trial), origin=self.source.path, config=self.source.config)

    def schedule(self) -> Schedule:
        settings = self.settings
        return Schedule(
            folder=self.folder / CHECKPOINTS,
            settings=settings,
            learning_rate=settings.learning_rate,
            seed=self.seed,
            warmup=settings.warmup,
            steps=self.steps(),
            per_step=self.tokens_per_step,
            evaluations=settings.evaluations,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def watchers(self) -> list[TrainerCallback]:
        return [ProgressLog()]

    def save(self, trainer: FairTrainer) -> None:
        """Writes the adapter, if there is one, and the complete model."""
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        with quiet():
            if not isinstance(model, PreTrainedModel):
                with final_folder(self.folder / ADAPTER) as target:
                    model.save_pretrained(target)
                    (target / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card
                model = model.merge_and_unload()
            with final_folder(self.folder / MODEL) as target:
                model.save_pretrained(target)
                write_companion(self.tokenizer, target, origin=self.source.path)

    def result(self, trainer: FairTrainer, ended: TrainingSummary) -> PostTrainingOutcome:
        metrics, examples = ended.metrics, self.examples
        evaluated = [row for row in metrics.rows if any(name.startswith("eval_") for name in row)]
        return PostTrainingOutcome(
            status="diverged" if ended.diverged else "finished",
            reason=ended.diverged,
            step=ended.step,
            examples=len(examples.train),
            held_out=len(examples.held_out),
            removed=examples.removed,
            too_long=examples.too_long,
            before=_figures(evaluated[0]),
            after={} if ended.diverged else _figures(evaluated[-1]),
            curves=_curves(metrics),
            gradient_norms=metrics.profiles("gradient_norms"),
            seconds=ended.seconds,
        )


def room(model_config: Any) -> int:
    """Maximum sequence length, tokens; 2³¹ if the model has no limit."""
    return positions(model_config) or 2**31


def with_padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a padding token: the end-of-text token if it has none.

    :raises DataError: if it has no end-of-text token, with which every trained completion ends.
    """
    if tokenizer.eos_token is None:
        raise DataError(
            "the model's tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def share(right: float, count: int) -> dict[str, float]:
    """The accuracy `right / count` with its binomial standard error √(p(1 − p)/n)."""
    value = right / count
    return {"accuracy": value, "accuracy_error": math.sqrt(value * (1 - value) / count)}


def mean(name: str, values: torch.Tensor) -> dict[str, float]:
    """The mean of values (N,) with its standard error, under `name` and `name_error`."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {name: values.mean().item(), f"{name}_error": error}


def _figures(row: dict[str, Any]) -> dict[str, ValueWithError]:
    figures = {name.removeprefix("eval_"): value for name, value in row.items() if name.startswith("eval_")}
    return {
        name: ValueWithError(value=value, error=figures.get(f"{name}_error"))
        for name, value in figures.items()
        if not name.endswith("_error") and value is not None
    }


def _curves(metrics: MetricsFile) -> dict[str, tuple[tuple[int, float], ...]]:
    names = dict.fromkeys(name for row in metrics.rows for name, value in row.items() if isinstance(value, float))
    omitted = ("learning_rate", "tokens_per_second")
    return {name: metrics.curve(name) for name in names if name not in omitted and not name.endswith("_error")}
