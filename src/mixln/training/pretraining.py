"""Trains a model from its initial weights or from a checkpoint, or resumes such a training, for any task."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer import SCHEDULER_NAME

from mixln.compat import checkpointing_argument
from mixln.hosts import build, placement_for
from mixln.hosts.companions import write_companion
from mixln.nn.profiling import profile
from mixln.nn.residual import placed_layers
from mixln.runs.checkpoints import final_folder
from mixln.runs.metrics import MetricsFile
from mixln.runs.outcome import Outcome
from mixln.training import ranks
from mixln.training.callbacks import ResidualVariance
from mixln.training.compiling import compile_layers
from mixln.training.precision import resolve
from mixln.training.private_methods import ResumableTrainer
from mixln.training.run import Schedule, TrainerParts, TrainingRun, TrainingSummary
from mixln.training.settings import EngineSettings, Parallel, ScratchSettings
from mixln.training.sharding import (
    load_optimizer,
    load_weights,
    save_optimizer,
    save_weights,
    shard,
    sharded,
    whole_weights,
)
from mixln.training.trainers import FairTrainer

log = logging.getLogger(__name__)


class ScratchTrainer(FairTrainer, ResumableTrainer):
    """Writes checkpoints that can be resumed with any number of processes, with DDP or FSDP2."""

    compiled: bool = False
    """Whether the layers are compiled."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # save_pretrained may store the weights of a stock model under other names, such as those of its experts one by one.
        stock = next(placed_layers(self.bare), None) is None
        if output_dir is not None and (stock or sharded(self.bare)):
            save_weights(self.bare, Path(output_dir))
        else:
            super().save_model(output_dir, _internal_call)

    def save_state_in(self, checkpoint: Path) -> None:
        save_optimizer(self.bare, self.adamw, checkpoint)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), checkpoint / SCHEDULER_NAME)

    def load_weights_from(self, checkpoint: Path) -> None:
        load_weights(self.bare, checkpoint)

    def load_state_from(self, checkpoint: Path) -> None:
        load_optimizer(self.bare, self.adamw, checkpoint)
        self.lr_scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER_NAME, weights_only=True))
        # load_optimizer restores tensors only, and LambdaLR sets the rates at its next step: after the first resumed update.
        for group, rate in zip(self.adamw.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    @property
    def bare(self) -> PreTrainedModel:
        """The model without its wrappers."""
        assert isinstance(self.model, PreTrainedModel)
        return self.model

    @property
    def adamw(self) -> torch.optim.Optimizer:
        """The optimizer without its wrapper."""
        assert isinstance(self.optimizer, AcceleratedOptimizer)
        return self.optimizer.optimizer

    def final(self) -> AbstractContextManager[None]:
        """Context in which the model has the weights to save: the current ones, unless a subclass averages them."""
        return nullcontext()


S = TypeVar("S", bound=ScratchSettings)
C = TypeVar("C", bound=ScratchSettings, covariant=True)


@dataclass(frozen=True, kw_only=True)
class StartConfig(ABC, Generic[C]):
    """Everything besides the data that determines the results of a pre-training, and how it runs.

    :param learning_rate: peak learning rate.
    :param seed: determines the order of the data, dropout, and values that a checkpoint does not hold.
    :param parallel: whether each of several processes holds the complete model (DDP) or a shard of it (FSDP2).
    :param trainings: approximate number of trainings in this process, including this one; they share compiled graphs.
    """

    learning_rate: float
    seed: int
    settings: C
    engine: EngineSettings = field(default_factory=EngineSettings)
    parallel: Parallel = "ddp"
    trainings: int = 1

    @abstractmethod
    def start(self, objective: Objective[Any], *, sharing: bool) -> PreTrainedModel:
        """The model before the first step, the same on every process.

        :param sharing: whether it will be sharded; it may then be on the meta device, to be initialised with the generator's state.
        """


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(StartConfig[C]):
    """A training from initial weights, which `seed` determines too.

    :param model: stock config.
    :param stochastic_depth: see :func:`mixln.from_config`.
    """

    model: PreTrainedConfig
    placement: str
    init: str
    stochastic_depth: float = 0.0

    def start(self, objective: Objective[Any], *, sharing: bool) -> PreTrainedModel:
        profiled = placement_for(self.model, self.placement).profiled
        # Not in the config's dtype: in bfloat16, updates of norm gains below 0.002 would round to nothing at 1.
        with torch.device("meta") if sharing and not profiled else nullcontext():
            model = build(
                objective.fitted(self.model),
                placement=self.placement,
                init=self.init,
                head=objective.head,
                stochastic_depth=self.stochastic_depth,
                dtype=getattr(torch, self.settings.weights),
            )
        if profiled:
            profile(model, objective.beginning(self.settings, self.seed))
        return model


@dataclass(frozen=True, kw_only=True)
class TrainerSetup(Generic[C]):
    """Arguments of a trainer from initial weights, for any task.

    :param parts: arguments common to all trainers.
    """

    model: PreTrainedModel
    settings: C
    engine: EngineSettings
    seed: int
    parts: TrainerParts


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Assessment of a training that did not diverge.

    :param reason: the reason for `stalled`; empty for `finished`.
    :param figures: see :class:`~mixln.runs.outcome.Outcome`.
    """

    status: Literal["finished", "stalled"]
    reason: str
    bits_per_byte: float | None = None
    figures: dict[str, float] = field(default_factory=dict)


class Objective(ABC, Generic[S]):
    """The part of a training that depends on the task: data, trainer and evaluation."""

    head: ClassVar[str]
    """Head of the model, see :func:`mixln.from_config`."""

    companion: Any
    """The tokenizer or image processor that is saved with the model."""

    @abstractmethod
    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of a stock config with the entries that depend on the data."""

    @abstractmethod
    def steps(self, settings: S) -> tuple[int, int]:
        """Number of optimizer steps, and tokens or images per step."""

    @abstractmethod
    def beginning(self, settings: S, seed: int) -> dict[str, Tensor]:
        """The first micro-batch of the training."""

    @abstractmethod
    def watched(self) -> dict[str, Any]:
        """Held-out inputs for measuring the residual stream, the same at every measurement."""

    @abstractmethod
    def trainer(self, setup: TrainerSetup[S]) -> ScratchTrainer:
        """The trainer, with the data."""

    @abstractmethod
    def judge(self, metrics: MetricsFile) -> Assessment:
        """Assesses a training that did not diverge by its evaluations."""


@dataclass(frozen=True, kw_only=True)
class PretrainingRun(TrainingRun[ScratchTrainer, Outcome], Generic[S]):
    """Trains a model; writes its metrics (`metrics.jsonl`) and checkpoints to `folder`, with the final one.

    Under torchrun, all processes must run this with the same arguments; they then train one model together.

    :param extra: additional callbacks; one may stop the training.
    """

    objective: Objective[S]
    config: StartConfig[S]
    folder: Path
    extra: Sequence[TrainerCallback] = ()

    def begin(self) -> None:
        ranks.meet()
        set_seed(self.config.seed)

    def schedule(self) -> Schedule:
        config = self.config
        steps, per_step = self.objective.steps(config.settings)
        return Schedule(
            folder=self.folder,
            settings=config.settings,
            learning_rate=config.learning_rate,
            seed=config.seed,
            warmup=config.settings.warmup,
            steps=steps,
            per_step=per_step,
            evaluations=config.settings.evaluations,
            checkpoint_seconds=config.engine.checkpoint_seconds,
        )

    def trainer(self, parts: TrainerParts) -> ScratchTrainer:
        config, engine = self.config, self.config.engine
        if parts.resume is not None and ranks.first():
            log.info(f"resuming from {parts.resume}")
        model = _model(self.objective, config)
        steps = config.trainings * self.objective.steps(config.settings)[0]
        compiled = compile_layers(model, engine.compile, device=device().type, steps=steps, sharded=sharded(model))
        options = {"remove_unused_columns": False, **checkpointing_argument(engine.activation_checkpointing)}
        trainer = self.objective.trainer(
            TrainerSetup(
                model=model,
                settings=config.settings,
                engine=engine,
                seed=config.seed,
                parts=replace(parts, arguments=parts.arguments | options),
            )
        )
        trainer.compiled = compiled
        return trainer

    def measured(self, metrics: MetricsFile) -> list[TrainerCallback]:
        return [ResidualVariance(metrics.append, self.objective.watched())]

    def watchers(self) -> list[TrainerCallback]:
        return list(self.extra)

    def saved_at(self, step: int) -> Path:
        """Folder of the trained model."""
        return self.folder / f"checkpoint-{step}"

    def save(self, trainer: ScratchTrainer) -> None:
        """Rank 0 writes the model with its tokenizer or image processor."""
        model, companion = trainer.bare, self.objective.companion
        weights = whole_weights(model) if sharded(model) else None  # a collective: every rank must call it
        if ranks.first():
            with trainer.final(), final_folder(self.saved_at(trainer.state.global_step)) as final:
                model.save_pretrained(final, state_dict=weights)
                write_companion(companion, final, origin=getattr(companion, "name_or_path", ""))
        ranks.wait()

    def result(self, trainer: ScratchTrainer, ended: TrainingSummary) -> Outcome:
        metrics = ended.metrics
        judged = None if ended.diverged else self.objective.judge(metrics)
        eval_curve = metrics.curve("eval_loss")
        return Outcome(
            status="diverged" if judged is None else judged.status,
            reason=ended.diverged if judged is None else judged.reason,
            step=ended.step,
            tokens=ended.step * self.objective.steps(self.config.settings)[1],
            loss=None if judged is None else eval_curve[-1][1],
            bits_per_byte=None if judged is None else judged.bits_per_byte,
            figures={} if judged is None else judged.figures,
            tokens_per_second=ended.speed.tokens_per_second,
            seconds=ended.seconds,
            first_step_seconds=ended.speed.first_step,
            compiled=trainer.compiled,
            train_curve=metrics.curve("loss"),
            eval_curve=eval_curve,
            gradient_norms=metrics.profiles("gradient_norms"),
            residual_variance=metrics.profiles("residual_variance"),
        )


def _model(objective: Objective[S], config: StartConfig[S]) -> PreTrainedModel:
    """The model before the first step, sharded if requested. Its weights do not depend on the number of processes."""
    sharing = config.parallel == "fsdp" and ranks.size() > 1
    model = config.start(objective, sharing=sharing)
    if sharing:
        shard(model, device(), bfloat16=resolve(config.settings.precision) == "bfloat16")
    return model


def device() -> torch.device:
    """The device on which this process trains."""
    from accelerate import PartialState

    assigned = PartialState(cpu=ranks.on_processors()).device
    assert isinstance(assigned, torch.device)
    return assigned
