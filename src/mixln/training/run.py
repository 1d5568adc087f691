"""The one loop of every training: from initial values, fine-tuning, reward models and reinforcement learning."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from transformers import TrainerCallback

from mixln.files import make_folder
from mixln.runs.metrics import MetricsFile
from mixln.training import ranks
from mixln.training.callbacks import Checkpoints, Divergence, Evaluations, GradientNorms, Metrics
from mixln.training.resuming import resumption
from mixln.training.settings import OptimizerSettings
from mixln.training.stopping import listening
from mixln.training.trainers import FairTrainer, arguments

R = TypeVar("R")
T = TypeVar("T", bound=FairTrainer)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a training is, and how often it is evaluated and saved.

    :param folder: of its checkpoints and metrics.
    :param steps: optimizer steps.
    :param per_step: tokens or images of one step; 0 where that is not known.
    :param evaluations: evenly spread, the last one at the end.
    :param checkpoint_seconds: time between two checkpoints, seconds.
    """

    folder: Path
    settings: OptimizerSettings
    learning_rate: float
    seed: int
    warmup: float
    steps: int
    per_step: float
    evaluations: int
    checkpoint_seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """What every trainer here is made of, whatever the model and the data.

    :param arguments: entries of transformers' `TrainingArguments`.
    :param resume: checkpoint from which the training resumes; `None` at its start.
    """

    arguments: dict[str, Any]
    warmup_steps: int
    callbacks: list[TrainerCallback]
    resume: Path | None


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """A training that ran to its end, or diverged.

    :param step: optimizer steps done.
    :param diverged: why it diverged; empty if it did not.
    :param speed: of its steps, tokens or images per second.
    :param seconds: wall time, evaluation included; of the last part where the training was resumed.
    """

    step: int
    diverged: str
    metrics: MetricsFile
    speed: Metrics
    seconds: float


class TrainingRun(ABC, Generic[T, R]):
    """One training with its trainer T and its result R."""

    patience: ClassVar[int | None] = 20
    """See :class:`~mixln.training.callbacks.Divergence`."""
    evaluates_first: ClassVar[bool] = False
    """Whether the model is evaluated before the first step; its loss is then the start that divergence is judged by."""

    @abstractmethod
    def begin(self) -> None:
        """Checks what can go wrong and settles randomness, before anything is written."""

    @abstractmethod
    def schedule(self) -> Schedule:
        """How long it is."""

    @abstractmethod
    def trainer(self, parts: TrainerParts) -> T:
        """The trainer, with the model at its start and the data."""

    @abstractmethod
    def save(self, trainer: T) -> None:
        """Writes the trained model."""

    @abstractmethod
    def result(self, trainer: T, ended: TrainingSummary) -> R:
        """The result."""

    def measured(self, metrics: MetricsFile) -> list[TrainerCallback]:
        """Callbacks that record what only this kind of training records."""
        return []

    def watchers(self) -> list[TrainerCallback]:
        """Callbacks after all others; one may end the training."""
        return []


def run(training: TrainingRun[T, R]) -> R:
    """Trains, and leaves metrics, checkpoints and the model; an interrupted training resumes from its last checkpoint.

    :raises Stopped: if SIGTERM ended it before its end; it has a checkpoint then.
    """
    started = time.perf_counter()
    training.begin()
    plan = training.schedule()
    make_folder(plan.folder)
    resume, metrics = resumption(plan.folder)
    speed, divergence = Metrics(metrics.append, plan.per_step), Divergence(training.patience)
    checkpoints = Checkpoints(plan.checkpoint_seconds)
    trainer = training.trainer(
        TrainerParts(
            arguments=arguments(
                plan.settings, steps=plan.steps, learning_rate=plan.learning_rate, seed=plan.seed, folder=plan.folder
            ),
            warmup_steps=round(plan.warmup * plan.steps),
            callbacks=[
                speed,
                GradientNorms(metrics.append),
                *training.measured(metrics),
                divergence,
                Evaluations(plan.evaluations),
                checkpoints,
                *training.watchers(),
            ],
            resume=resume,
        )
    )
    if training.evaluates_first:
        if resume is None:
            trainer.evaluate()
        divergence.start = next((row["eval_loss"] for row in metrics.rows if "eval_loss" in row), None)
    if ranks.rank():  # dropout of its own; rank 0 has what a process alone has
        torch.manual_seed(int(torch.randint(2**32, (ranks.rank(),))[-1]))
    with listening():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    checkpoints.check()
    if not divergence.reason:
        training.save(trainer)
    seconds = time.perf_counter() - started
    step = trainer.state.global_step
    return training.result(
        trainer, TrainingSummary(step=step, diverged=divergence.reason, metrics=metrics, speed=speed, seconds=seconds)
    )
