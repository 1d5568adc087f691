"""Pre-training one placed causal language model on a prepared text, from its start or from where it was cut off."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.optimizer import AcceleratedOptimizer
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments, masking_utils, set_seed
from transformers.trainer import SCHEDULER_NAME

from mixln.data.stream import POSITION, START, Position, Stream
from mixln.data.text import IGNORED, Text
from mixln.files import folder_atomic
from mixln.hosts import build, placement_for
from mixln.nn.loss import without_logits
from mixln.nn.profiling import profile
from mixln.records import read_json
from mixln.training import ranks
from mixln.training.callbacks import (
    Checkpoints,
    Divergence,
    Evaluations,
    GradientNorms,
    Metrics,
    ResidualVariance,
)
from mixln.training.checkpoints import resumption
from mixln.training.compiling import compile_layers
from mixln.training.metrics import MetricsFile
from mixln.training.outcome import Outcome, Status
from mixln.training.precision import resolve
from mixln.training.settings import EngineSettings, Parallel, TrainSettings
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
from mixln.training.trainers import EqualTerms, arguments, per_process

DEFAULT_ENGINE = EngineSettings()
PLACE = "position.json"
"""Of a checkpoint, where a stream goes on."""

STALL_MARGIN = 0.02
"""A trial whose held-out loss is less than this below the unigram model's is `stalled`, nats per token."""


class PlacementTrainer(EqualTerms):
    """The trainer of pre-training: with experts, their balance is part of what is trained; a stream goes on where it was.

    :param position: where it begins in a stream.
    """

    def __init__(self, *, position: Position = START, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.position = position
        self.balance: float = getattr(self.model.config, "router_aux_loss_coef", 0.0)  # type: ignore[union-attr]
        if self.balance:
            self.model.router_aux_loss_coef = 0.0  # type: ignore[union-attr] # added by compute_loss, once an update

    def get_train_dataloader(self) -> DataLoader[Any]:
        if not isinstance(self.train_dataset, Stream):
            return super().get_train_dataloader()
        # As it is: accelerate would deal it out once more.
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=collate,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # else it would draw from the one that dropout does
        )

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *more: Any, **others: Any) -> Tensor:
        if POSITION in inputs:
            self.position = Position.from_tensor(inputs.pop(POSITION)[-1])
        return super().training_step(model, inputs, *more, **others)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if isinstance(self.train_dataset, Stream) and self.args.should_save:
            (Path(output_dir) / PLACE).write_text(json.dumps(asdict(self.position)), "utf-8")

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

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Defers nothing: until the last part of the batch each process would keep whole gradients."""
        return nullcontext()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The language model's loss; with experts, their load-balancing loss times its coefficient on top, as their papers train them."""
        more = {"output_router_logits": True} if self.balance else {}
        with without_logits(self.bare), each_row_one_sequence():
            found: Any = super().compute_loss(model, {**inputs, **more}, True, num_items_in_batch)
        loss, outputs = found
        if self.balance:
            # Trainer divides the language model's loss by the tokens of the whole update; the balance is a mean over its parts.
            loss = loss + self.balance * outputs.aux_loss / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


_one_sequence = ContextVar("_one_sequence", default=False)
_look = masking_utils.find_packed_sequence_indices


def _look_unless_known(position_ids: Tensor) -> Tensor | None:
    return None if _one_sequence.get() else _look(position_ids)


masking_utils.find_packed_sequence_indices = _look_unless_known


@contextmanager
def each_row_one_sequence() -> Iterator[None]:
    """Within it transformers does not wait for the device to see whether a row holds several sequences, which it otherwise does in
    every forward pass: it looks for positions that begin anew, and here the model itself counts them."""
    token = _one_sequence.set(True)
    try:
        yield
    finally:
        _one_sequence.reset(token)


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks rows; where there are no labels, every token is one."""
    columns = {name: torch.stack([row[name] for row in rows]).long() for name in rows[0]}
    return {"labels": columns["input_ids"], **columns}


def pretrain(
    config: PreTrainedConfig,
    *,
    placement: str,
    init: str,
    learning_rate: float,
    seed: int,
    text: Text,
    settings: TrainSettings,
    folder: Path,
    engine: EngineSettings = DEFAULT_ENGINE,
    parallel: Parallel = "ddp",
    together: int = 1,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains one model, and leaves in `folder` its metrics (`metrics.jsonl`) and its final checkpoint.

    A training that was cut off goes on from its last checkpoint and ends with the numbers that it would have had. Several
    processes that torchrun started train one model together, if all call this with the same arguments.

    :param config: stock config of the model.
    :param learning_rate: peak learning rate.
    :param seed: decides the initial weights and the order of the data.
    :param folder: where everything of this training lies.
    :param parallel: what several processes do: each holds the whole model (DDP) or a share of it (FSDP2).
    :param together: about how many trainings its process does, of which this is one: they share what is compiled.
    :param say: takes one line of news.
    :raises Stopped: if SIGTERM ended it before its end; it has a checkpoint then.
    """
    started = time.perf_counter()
    ranks.meet()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = text.tokenizer()
    config = copy.deepcopy(config)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = None  # packed text has no padding, and the embedding of a padding token would stay 0
    set_seed(seed)
    model = _model(config, placement=placement, init=init, seed=seed, text=text, settings=settings, parallel=parallel)
    resume, metrics = resumption(folder, say)
    if resume is not None and ranks.first():
        say(f"going on from {resume}")
    held_out = text.held_out
    length = held_out[0]["input_ids"].numel()
    position = Position(**read_json(resume / PLACE)) if resume and text.info.stream is not None else START
    steps, tokens_per_step = settings.total_steps(length), settings.batch_size * length
    compile_layers(model, engine.compile, device=device().type, steps=together * steps, sharded=sharded(model))
    speed, divergence = Metrics(metrics.append, tokens_per_step), Divergence()
    checkpoints = Checkpoints(engine.checkpoint_seconds)
    trainer = PlacementTrainer(
        settings=settings,
        warmup_steps=settings.warmup_steps(length),
        model=model,
        args=TrainingArguments(
            **arguments(settings, steps=steps, learning_rate=learning_rate, seed=seed, folder=folder),
            remove_unused_columns=False,
            activation_checkpointing=engine.activation_checkpointing,
            ignore_data_skip=text.info.stream is not None,
        ),
        position=position,
        train_dataset=_train(
            text,
            settings.batch_size,
            seed,
            rank=ranks.rank(),
            size=ranks.size(),
            workers=engine.data_workers,
            begin=position,
        ),
        eval_dataset=shared_out(held_out, per_process(settings, ranks.size()) * ranks.size()),
        data_collator=collate,
        callbacks=[
            speed,
            GradientNorms(metrics.append),
            ResidualVariance(metrics.append, collate([held_out[i] for i in range(min(8, len(held_out)))])),
            divergence,
            Evaluations(settings.evaluations),
            checkpoints,
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
            with folder_atomic(folder / f"checkpoint-{step}") as final:
                model.save_pretrained(final, state_dict=whole)
                tokenizer.save_pretrained(final)
        ranks.wait()
    return _outcome(metrics, divergence.reason, step, tokens_per_step, text, speed, time.perf_counter() - started)


def _model(
    config: PreTrainedConfig,
    *,
    placement: str,
    init: str,
    seed: int,
    text: Text,
    settings: TrainSettings,
    parallel: Parallel,
) -> PreTrainedModel:
    """The model at its start, sharded if that is asked for; whatever the number of processes, its weights are the same."""
    sharing = parallel == "fsdp" and ranks.size() > 1
    profiled = placement_for(config, placement).profiled
    # Whatever the config's dtype: master weights and optimizer in bfloat16 would leave norm gains at 1.
    with torch.device("meta") if sharing and not profiled else nullcontext():
        model = build(config, placement=placement, init=init, dtype=torch.float32)
    if profiled:
        count = settings.micro_batch_size or settings.batch_size
        profile(model, collate(list(islice(_train(text, settings.batch_size, seed), count))))
    if sharing:
        shard(model, device(), bfloat16=resolve(settings.precision) == "bfloat16")
    return model


def _train(text: Text, batch: int, seed: int, **share: Any) -> Any:
    """The training sequences.

    :param share: of a stream, what of it this process has, see :class:`Stream`; left out, all.
    """
    if text.info.stream is not None:
        return text.streamed(seed=seed, **share)
    train = text.train
    return train.select(range(len(train) // batch * batch))  # every update sees the same number of sequences


def shared_out(rows: Dataset, multiple: int) -> Dataset:
    """The rows with blank ones behind them, so that all processes have equally many and none is counted twice."""
    missing = -len(rows) % multiple if ranks.size() > 1 else 0
    if not missing:
        return rows
    blank = {name: [value.tolist()] * missing for name, value in rows[0].items()}
    blank["labels"] = [[IGNORED] * len(labels) for labels in blank["labels"]]
    added = datasets.Dataset.from_dict(blank, features=rows.features)
    return datasets.concatenate_datasets([rows, added.with_format("torch")])


def device() -> torch.device:
    """Where this process trains."""
    from accelerate import PartialState

    found = PartialState(cpu=ranks.on_processors()).device
    assert isinstance(found, torch.device)
    return found


def _outcome(
    metrics: MetricsFile,
    divergence: str,
    step: int,
    tokens_per_step: int,
    text: Text,
    speed: Metrics,
    seconds: float,
) -> Outcome:
    eval_curve = metrics.curve("eval_loss")
    loss = None if divergence else eval_curve[-1][1]
    status: Status = "finished"
    reason = ""
    if loss is None:
        status, reason = "diverged", divergence
    elif loss >= text.info.unigram_loss - STALL_MARGIN:
        status = "stalled"
        reason = f"held-out loss {loss:.3f} is no better than the unigram model's {text.info.unigram_loss:.3f}"
    return Outcome(
        status=status,
        reason=reason,
        step=step,
        tokens=step * tokens_per_step,
        loss=loss,
        bits_per_byte=None if loss is None else text.info.bits_per_byte(loss),
        tokens_per_second=speed.tokens_per_second,
        seconds=seconds,
        first_step_seconds=speed.first_step,
        train_curve=metrics.curve("loss"),
        eval_curve=eval_curve,
        gradient_norms=metrics.profiles("gradient_norms"),
        residual_variance=metrics.profiles("residual_variance"),
    )
