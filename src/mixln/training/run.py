"""The training loop of pre-training, fine-tuning, reward models and reinforcement learning."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from transformers import TrainerCallback

from mixln.files import make_folder
from mixln.nn.ramp import step_of
from mixln.nn.step_callback import StepCallback
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
    """Length of a training, and frequency of its evaluations and checkpoints.

    :param folder: folder of the checkpoints and metrics.
    :param warmup: share of the steps.
    :param steps: optimizer steps.
    :param per_step: tokens or images per step; 0 if unknown.
    :param evaluations: number of evaluations at even intervals, the last one at the last step.
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
    """Arguments of a trainer that depend on neither the model nor the data.

    :param arguments: entries of transformers' `TrainingArguments`.
    :param resume: checkpoint to resume from; `None` at the start.
    """

    arguments: dict[str, Any]
    warmup_steps: int
    callbacks: list[TrainerCallback]
    resume: Path | None


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """A training that was completed or diverged.

    :param step: number of completed optimizer steps.
    :param diverged: the reason for divergence; empty if it did not diverge.
    :param speed: training speed, tokens or images per second.
    :param seconds: wall time including evaluations; of a resumed training, since it was last resumed.
    """

    step: int
    diverged: str
    metrics: MetricsFile
    speed: Metrics
    seconds: float


class TrainingRun(ABC, Generic[T, R]):
    """A training with trainer T and result R."""

    patience: ClassVar[int | None] = 20
    """See :class:`~mixln.training.callbacks.Divergence`."""
    evaluates_first: ClassVar[bool] = False
    """Whether the model is evaluated before the first step; divergence is then judged by that loss."""

    @abstractmethod
    def begin(self) -> None:
        """Checks the preconditions and seeds the generators, before anything is written."""

    @abstractmethod
    def schedule(self) -> Schedule:
        """Length of the training, and frequency of its evaluations."""

    @abstractmethod
    def trainer(self, parts: TrainerParts) -> T:
        """The trainer with the initial model and the data."""

    @abstractmethod
    def save(self, trainer: T) -> None:
        """Writes the trained model."""

    @abstractmethod
    def result(self, trainer: T, ended: TrainingSummary) -> R:
        """The result."""

    def measured(self, metrics: MetricsFile) -> list[TrainerCallback]:
        """Additional callbacks that record metrics."""
        return []

    def watchers(self) -> list[TrainerCallback]:
        """Callbacks that run after all others; one may stop the training."""
        return []


def run(training: TrainingRun[T, R]) -> R:
    """Trains a model and writes metrics, checkpoints and the model. An interrupted training resumes from its last checkpoint.

    :raises Stopped: if SIGTERM or Ctrl-C stopped the training; a checkpoint has been written.
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
    trainer.add_callback(StepCallback(done=step_of(trainer.accelerator.unwrap_model(trainer.model))))
    if training.evaluates_first:
        if resume is None:
            trainer.evaluate()
        divergence.start = next((row["eval_loss"] for row in metrics.rows if "eval_loss" in row), None)
    if ranks.rank():  # other dropout masks than rank 0, which keeps the seed of a single process
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
