"""Trains one placed model from its initial values, or resumes such a training, whatever the task."""

from __future__ import annotations

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
from mixln.hosts.sources import Say
from mixln.nn.profiling import profile
from mixln.runs.checkpoints import final_folder
from mixln.runs.metrics import MetricsFile
from mixln.runs.outcome import Outcome
from mixln.training import ranks
from mixln.training.callbacks import ResidualVariance
from mixln.training.compiling import compile_layers
from mixln.training.precision import resolve
from mixln.training.private_methods import ResumableTrainer
from mixln.training.run import Ended, Schedule, TrainerParts, TrainingRun
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
from mixln.training.trainers import EqualTerms


class ScratchTrainer(EqualTerms, ResumableTrainer):
    """Saves and loads what a training goes on from in a form that any number of processes, with DDP or FSDP2, can read."""

    compiled: bool = False
    """Whether its layers are compiled."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if output_dir is not None and sharded(self.bare):
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
        for group, rate in zip(self.adamw.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    @property
    def bare(self) -> PreTrainedModel:
        """The model without what wraps it."""
        assert isinstance(self.model, PreTrainedModel)
        return self.model

    @property
    def adamw(self) -> torch.optim.Optimizer:
        """The optimizer without what wraps it."""
        assert isinstance(self.optimizer, AcceleratedOptimizer)
        return self.optimizer.optimizer

    def final(self) -> AbstractContextManager[None]:
        """Within it, the model is what this training makes of it: for most, what it is."""
        return nullcontext()


S = TypeVar("S", bound=ScratchSettings)
C = TypeVar("C", bound=ScratchSettings, covariant=True)


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(Generic[C]):
    """Everything that decides the numbers of one training from initial values, but for its data; and how it runs.

    :param model: stock config.
    :param learning_rate: peak learning rate.
    :param seed: decides the initial weights and the order of the data.
    :param parallel: of several processes, whether each holds the whole model (DDP) or a share of it (FSDP2).
    :param stochastic_depth: see :func:`mixln.from_config`.
    :param trainings: about how many trainings this process does, this one among them: they share compiled graphs.
    """

    model: PreTrainedConfig
    placement: str
    init: str
    learning_rate: float
    seed: int
    settings: C
    engine: EngineSettings = field(default_factory=EngineSettings)
    parallel: Parallel = "ddp"
    stochastic_depth: float = 0.0
    trainings: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainerSetup(Generic[C]):
    """What every trainer of a training from initial values is made of, whatever the data.

    :param parts: what every trainer here is made of.
    """

    model: PreTrainedModel
    settings: C
    engine: EngineSettings
    seed: int
    parts: TrainerParts


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a training that did not diverge ended.

    :param reason: why it is `stalled`; empty for `finished`.
    :param figures: see :class:`~mixln.runs.outcome.Outcome`.
    """

    status: Literal["finished", "stalled"]
    reason: str
    bits_per_byte: float | None = None
    figures: dict[str, float] = field(default_factory=dict)


class Objective(ABC, Generic[S]):
    """Data with the trainer and the evaluation that belong to them: what differs between one task and another in a training."""

    head: ClassVar[str]
    """The model's, see :func:`mixln.from_config`."""

    companion: Any
    """Saved beside the model: a tokenizer or an image processor."""

    @abstractmethod
    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of a stock config, with the entries that the data decide."""

    @abstractmethod
    def steps(self, settings: S) -> tuple[int, int]:
        """Optimizer steps, and the tokens or images of one step."""

    @abstractmethod
    def beginning(self, settings: S, seed: int) -> dict[str, Tensor]:
        """The first batch, or the part of it that one forward pass sees."""

    @abstractmethod
    def watched(self) -> dict[str, Any]:
        """Held-out inputs, always the same, on which the residual stream is measured."""

    @abstractmethod
    def trainer(self, setup: TrainerSetup[S]) -> ScratchTrainer:
        """The trainer, with the data."""

    @abstractmethod
    def judge(self, metrics: MetricsFile) -> Judgement:
        """Tells from its evaluations how a training that did not diverge ended."""


@dataclass(frozen=True, kw_only=True)
class PretrainingRun(TrainingRun[ScratchTrainer, Outcome], Generic[S]):
    """Trains one model from its initial values, and leaves in `folder` its metrics (`metrics.jsonl`) and its final checkpoint.

    Several processes that torchrun started train one model together, if all run the same.

    :param extra: callbacks beside those that record; one may end the training.
    :param say: takes one line of news.
    """

    objective: Objective[S]
    config: PretrainingConfig[S]
    folder: Path
    extra: Sequence[TrainerCallback] = ()
    say: Say = print

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
            self.say(f"going on from {parts.resume}")
        model = _model(self.objective, config)
        steps = config.trainings * self.objective.steps(config.settings)[0]
        compiled = compile_layers(model, engine.compile, device=device().type, steps=steps, sharded=sharded(model))
        own = {"remove_unused_columns": False, **checkpointing_argument(engine.activation_checkpointing)}
        trainer = self.objective.trainer(
            TrainerSetup(
                model=model,
                settings=config.settings,
                engine=engine,
                seed=config.seed,
                parts=replace(parts, arguments=parts.arguments | own),
            )
        )
        trainer.compiled = compiled
        return trainer

    def measured(self, metrics: MetricsFile) -> list[TrainerCallback]:
        return [ResidualVariance(metrics.append, self.objective.watched())]

    def watchers(self) -> list[TrainerCallback]:
        return list(self.extra)

    def save(self, trainer: ScratchTrainer) -> None:
        """Of several processes, rank 0 writes the model with its companion."""
        model, companion = trainer.bare, self.objective.companion
        whole = whole_weights(model) if sharded(model) else None
        if ranks.first():
            path = self.folder / f"checkpoint-{trainer.state.global_step}"
            with trainer.final(), final_folder(path, self.say) as final:
                model.save_pretrained(final, state_dict=whole)
                write_companion(companion, final, origin=getattr(companion, "name_or_path", ""))
        ranks.wait()

    def result(self, trainer: ScratchTrainer, ended: Ended) -> Outcome:
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


def _model(objective: Objective[S], config: PretrainingConfig[S]) -> PreTrainedModel:
    """The model at its start, sharded if that is asked for; whatever the number of processes, its weights are the same."""
    sharing = config.parallel == "fsdp" and ranks.size() > 1
    profiled = placement_for(config.model, config.placement).profiled
    # Whatever the config's dtype: weights and moments in bfloat16 would leave norm gains at 1.
    with torch.device("meta") if sharing and not profiled else nullcontext():
        model = build(
            objective.fitted(config.model),
            placement=config.placement,
            init=config.init,
            head=objective.head,
            stochastic_depth=config.stochastic_depth,
            dtype=getattr(torch, config.settings.weights),
        )
    if profiled:
        profile(model, objective.beginning(config.settings, config.seed))
    if sharing:
        shard(model, device(), bfloat16=resolve(config.settings.precision) == "bfloat16")
    return model


def device() -> torch.device:
    """Where this process trains."""
    from accelerate import PartialState

    found = PartialState(cpu=ranks.on_processors()).device
    assert isinstance(found, torch.device)
    return found
