"""Continued pre-training: a language model of a checkpoint, stock or placed, trained further on text."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, TrainerCallback

from mixln.hosts.configs import is_placed
from mixln.hosts.sources import Source, identity, load, own_precision
from mixln.records import to_json
from mixln.runs.folder import RunKind
from mixln.runs.metrics import METRICS, MetricsFile
from mixln.runs.outcome import Outcome
from mixln.runs.schema import Schema
from mixln.training import ranks
from mixln.training.callbacks import ProgressLog, ResidualVariance
from mixln.training.language_modelling import LanguageObjective
from mixln.training.post_training_run import CHECKPOINTS, MODEL
from mixln.training.precision import resolve
from mixln.training.pretraining import Objective, PretrainingRun, ScratchTrainer, StartConfig
from mixln.training.run import run
from mixln.training.settings import TrainSettings

CONTINUATION_RUN = RunKind(
    noun="continued training",
    result=Schema(kind="continuation-result", file="continuation-result.json", record=Outcome),
)


@dataclass(frozen=True, kw_only=True)
class ContinuationConfig(StartConfig[TrainSettings]):
    """A training that starts from a checkpoint: its weights, config and placement are the checkpoint's.

    :param source: a causal language model.
    """

    source: Source

    def start(self, objective: Objective[Any], *, sharing: bool) -> PreTrainedModel:
        return load(self.source, dtype=self.settings.weights, whole=True).train()


@dataclass(frozen=True, kw_only=True)
class ContinuationRun(PretrainingRun[TrainSettings]):
    """Trains a checkpoint further. The trained model has the class, the config and the number format of the checkpoint.

    :param out: folder of the run; :attr:`folder` is its subfolder of checkpoints and metrics.
    """

    # A checkpoint may start near its minimum, where training losses stay above the first held-out loss without diverging.
    patience: ClassVar[int | None] = None
    evaluates_first: ClassVar[bool] = True

    objective: LanguageObjective
    config: ContinuationConfig
    out: Path

    def asked(self) -> dict[str, Any]:
        """Everything that the outcome depends on, to detect another request in the same folder."""
        settings = self.config.settings
        steps, _ = self.objective.steps(settings)
        fixed = replace(settings, steps=steps, tokens=None, precision=resolve(settings.precision))
        return {
            "kind": "continuation",
            "model": identity(self.config.source),
            "text": self.objective.text.info.fingerprint,
            "settings": to_json(fixed),
            "learning_rate": self.config.learning_rate,
            "seed": self.config.seed,
        }

    def leaves(self, result: Outcome) -> tuple[str, ...]:
        """Names of the files and folders of the result, for :meth:`~mixln.runs.folder.RunFolder.once`."""
        return (f"{CHECKPOINTS}/{METRICS}", *([] if result.status == "diverged" else [MODEL]))

    def train(self) -> Outcome:
        """Trains, on every rank."""
        return run(self)

    def measured(self, metrics: MetricsFile) -> list[TrainerCallback]:
        placed = is_placed(self.config.source.config)
        return [ResidualVariance(metrics.append, self.objective.watched())] if placed else []

    def watchers(self) -> list[TrainerCallback]:
        return [ProgressLog()] if ranks.first() else []

    def saved_at(self, step: int) -> Path:
        return self.out / MODEL

    def save(self, trainer: ScratchTrainer) -> None:
        model, source = trainer.bare, self.config.source
        model.config = copy.deepcopy(source.config)  # in that of the model, the Trainer has set use_cache
        model.to(getattr(torch, own_precision(source)))  # type: ignore[arg-type]
        super().save(trainer)
