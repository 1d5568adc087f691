"""Training one placed model from its initial values, from the start or from where it was cut off, whatever it learns from."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer import SCHEDULER_NAME

from mixln.hosts import build, placement_for
from mixln.hosts.companions import write_companion
from mixln.nn.profiling import profile
from mixln.runs.checkpoints import final_folder
from mixln.runs.metrics import MetricsFile
from mixln.runs.outcome import Outcome
from mixln.training import ranks
from mixln.training.callbacks import Checkpoints, Divergence, Evaluations, GradientNorms, Metrics, ResidualVariance
from mixln.training.compiling import compile_layers
from mixln.training.precision import resolve
from mixln.training.resuming import resumption
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
from mixln.training.stopping import listening
from mixln.training.trainers import EqualTerms, arguments

DEFAULT_ENGINE = EngineSettings()


class ScratchTrainer(EqualTerms):
    """Saves and loads what a training goes on from in a form that any number of processes, with DDP or FSDP2, can read."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if output_dir is not None and sharded(self.bare):
            save_weights(self.bare, Path(output_dir))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save_optimizer(self.bare, self.adamw, Path(output_dir))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), os.path.join(output_dir, SCHEDULER_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.bare, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        load_optimizer(self.bare, self.adamw, Path(checkpoint))
        path = os.path.join(checkpoint, SCHEDULER_NAME)
        self.lr_scheduler.load_state_dict(torch.load(path, weights_only=True))
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

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Defers nothing: until the last part of the batch each process would keep whole gradients."""
        return nullcontext()


S = TypeVar("S", bound=ScratchSettings)


class Material(ABC, Generic[S]):
    """What a model learns from, and what it is measured on."""

    head: ClassVar[str]
    """The model's, see :func:`mixln.from_config`."""

    companion: Any
    """What is saved beside the model: a tokenizer or an image processor."""

    @abstractmethod
    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of a stock config, with what this material decides."""

    @abstractmethod
    def steps(self, settings: S) -> tuple[int, int]:
        """Optimizer steps, and what one step sees: tokens, or images."""

    @abstractmethod
    def beginning(self, settings: S, seed: int) -> dict[str, Tensor]:
        """The first batch, or the part of it that one forward pass sees."""

    @abstractmethod
    def watched(self) -> dict[str, Any]:
        """What the residual stream is measured on: held-out inputs, always the same."""

    @abstractmethod
    def trainer(
        self, chosen: dict[str, Any], *, seed: int, engine: EngineSettings, resume: Path | None, **common: Any
    ) -> ScratchTrainer:
        """The trainer.

        :param chosen: its arguments.
        :param resume: checkpoint that it will go on from.
        :param common: everything else that :class:`ScratchTrainer` takes, but for the data.
        """

    @abstractmethod
    def judged(self, metrics: MetricsFile) -> dict[str, Any]:
        """How a training that did not diverge ended: `status`, `reason`, and figures of the outcome beside the loss."""


def train_from_scratch(
    config: PreTrainedConfig,
    *,
    placement: str,
    init: str,
    learning_rate: float,
    seed: int,
    material: Material[S],
    settings: S,
    folder: Path,
    engine: EngineSettings = DEFAULT_ENGINE,
    parallel: Parallel = "ddp",
    stochastic_depth: float = 0.0,
    together: int = 1,
    watchers: Sequence[TrainerCallback] = (),
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains one model, and leaves in `folder` its metrics (`metrics.jsonl`) and its final checkpoint.

    A training that was cut off goes on from its last checkpoint and ends with the numbers that it would have had. Several
    processes that torchrun started train one model together, if all call this with the same arguments.

    :param config: stock config of the model.
    :param learning_rate: peak learning rate.
    :param seed: decides the initial weights and the order of the data.
    :param settings: of the material: :class:`~mixln.training.settings.TrainSettings` for text.
    :param folder: where everything of this training lies.
    :param parallel: what several processes do: each holds the whole model (DDP) or a share of it (FSDP2).
    :param stochastic_depth: see :func:`mixln.from_config`.
    :param together: about how many trainings its process does, of which this is one: they share what is compiled.
    :param watchers: callbacks beside those that record; one may end the training.
    :param say: takes one line of news.
    :raises Stopped: if SIGTERM ended it before its end; it has a checkpoint then.
    """
    started = time.perf_counter()
    ranks.meet()
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(seed)
    made = {"placement": placement, "init": init, "head": material.head, "stochastic_depth": stochastic_depth}
    model = _model(material, config, made, seed=seed, settings=settings, parallel=parallel)
    resume, metrics = resumption(folder, say)
    if resume is not None and ranks.first():
        say(f"going on from {resume}")
    steps, per_step = material.steps(settings)
    compiled = compile_layers(
        model, engine.compile, device=device().type, steps=together * steps, sharded=sharded(model)
    )
    speed, divergence = Metrics(metrics.append, per_step), Divergence()
    checkpoints = Checkpoints(engine.checkpoint_seconds)
    trainer = material.trainer(
        {
            **arguments(settings, steps=steps, learning_rate=learning_rate, seed=seed, folder=folder),
            "remove_unused_columns": False,
            "activation_checkpointing": engine.activation_checkpointing,
        },
        seed=seed,
        engine=engine,
        resume=resume,
        settings=settings,
        warmup_steps=round(settings.warmup * steps),
        model=model,
        callbacks=[
            speed,
            GradientNorms(metrics.append),
            ResidualVariance(metrics.append, material.watched()),
            divergence,
            Evaluations(settings.evaluations),
            checkpoints,
            *watchers,
        ],
    )
    if ranks.rank():  # dropout of its own; rank 0 has what a process alone has
        torch.manual_seed(int(torch.randint(2**32, (ranks.rank(),))[-1]))
    with listening():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    checkpoints.check()
    step = trainer.state.global_step
    if not divergence.reason:
        whole = whole_weights(model) if sharded(model) else None
        if ranks.first():
            with trainer.final(), final_folder(folder / f"checkpoint-{step}", say) as final:
                model.save_pretrained(final, state_dict=whole)
                write_companion(material.companion, final, origin=getattr(material.companion, "name_or_path", ""))
        ranks.wait()
    eval_curve = metrics.curve("eval_loss")
    ended = {"status": "diverged", "reason": divergence.reason} if divergence.reason else material.judged(metrics)
    return Outcome(
        **{"bits_per_byte": None, **ended},
        step=step,
        tokens=step * per_step,
        loss=None if divergence.reason else eval_curve[-1][1],
        tokens_per_second=speed.tokens_per_second,
        seconds=time.perf_counter() - started,
        first_step_seconds=speed.first_step,
        compiled=compiled,
        train_curve=metrics.curve("loss"),
        eval_curve=eval_curve,
        gradient_norms=metrics.profiles("gradient_norms"),
        residual_variance=metrics.profiles("residual_variance"),
    )


def _model(
    material: Material[S],
    config: PreTrainedConfig,
    made: dict[str, Any],
    *,
    seed: int,
    settings: S,
    parallel: Parallel,
) -> PreTrainedModel:
    """The model at its start, sharded if that is asked for; whatever the number of processes, its weights are the same."""
    sharing = parallel == "fsdp" and ranks.size() > 1
    profiled = placement_for(config, made["placement"]).profiled
    # Whatever the config's dtype: weights and moments in bfloat16 would leave norm gains at 1.
    with torch.device("meta") if sharing and not profiled else nullcontext():
        model = build(material.fitted(config), **made, dtype=getattr(torch, settings.weights))
    if profiled:
        profile(model, material.beginning(settings, seed))
    if sharing:
        shard(model, device(), bfloat16=resolve(settings.precision) == "bfloat16")
    return model


def device() -> torch.device:
    """Where this process trains."""
    from accelerate import PartialState

    found = PartialState(cpu=ranks.on_processors()).device
    assert isinstance(found, torch.device)
    return found
