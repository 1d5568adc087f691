"""Training language models from initial weights on a prepared text."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TrainingArguments

from mixln.data.packing import IGNORED
from mixln.data.stream import POSITION, START, Position, TokenStream
from mixln.data.text import Text
from mixln.errors import CheckpointError
from mixln.nn.loss import without_logits
from mixln.records import unreadable
from mixln.runs.metrics import MetricsFile
from mixln.runs.schema import Schema
from mixln.training import ranks
from mixln.training.pretraining import Assessment, Objective, ScratchTrainer, TrainerSetup
from mixln.training.private_methods import each_row_one_sequence
from mixln.training.settings import TrainSettings
from mixln.training.trainers import per_process

if TYPE_CHECKING:
    from datasets import Dataset

PLACE = Schema(kind="stream-position", file="position.json", record=Position)
"""The position in a checkpoint at which a stream resumes."""

STALL_MARGIN = 0.02
"""A trial is `stalled` if its held-out loss is not below the unigram baseline by at least this, nats per token."""


class PlacementTrainer(ScratchTrainer):
    """Trains language models. The loss of a mixture of experts includes the load-balancing loss; a stream resumes at its position.

    :param target: the tokens to predict; by default the next ones.
    :param position: start position in a stream.
    """

    def __init__(self, *, target: Target | None = None, position: Position = START, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target, self.position = target or NextToken(), position
        self.balance: float = getattr(self.model.config, "router_aux_loss_coef", 0.0)  # type: ignore[union-attr]
        if self.balance:
            self.model.router_aux_loss_coef = 0.0  # type: ignore[union-attr] # added by compute_loss instead

    def get_train_dataloader(self) -> DataLoader[Any]:
        if not isinstance(self.train_dataset, TokenStream):
            return super().get_train_dataloader()
        # Not through accelerate, which would shard the stream a second time.
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=collate,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # else it would consume the global generator, which dropout uses
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of one optimizer step with their labels, which the Trainer counts to give every token the same weight."""
        rows = self.args.per_device_train_batch_size * ranks.size()

        def labelled() -> Iterator[Any]:
            for number, batch in enumerate(epoch_iterator):
                row = number * rows + ranks.rank() * self.args.per_device_train_batch_size
                yield self.target.training(batch, seed=self.args.seed, step=self.state.global_step, row=row)

        return super().get_batch_samples(labelled(), num_batches, device)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *more: Any, **others: Any) -> Tensor:
        if POSITION in inputs:
            self.position = Position.from_tensor(inputs.pop(POSITION)[-1])
        return super().training_step(model, inputs, *more, **others)

    def random_state_saved(self, checkpoint: Path) -> None:
        if isinstance(self.train_dataset, TokenStream) and self.args.should_save:
            PLACE.write(checkpoint, self.position)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The language-modelling loss, plus the load-balancing loss times its coefficient for a mixture of experts."""
        more = {"output_router_logits": True} if self.balance else {}
        with without_logits(self.bare), each_row_one_sequence():
            result: Any = super().compute_loss(model, {**inputs, **more}, True, num_items_in_batch)
        loss, outputs = result
        if self.balance:
            # The Trainer divides the summed loss by the tokens of the complete update; the balance is averaged over micro-batches.
            loss = loss + self.balance * outputs.aux_loss / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks rows into columns (B, T). Without labels, the input tokens are the labels."""
    columns = {name: torch.stack([row[name] for row in rows]).long() for name in rows[0]}
    return {"labels": columns["input_ids"], **columns}


class Target(Protocol):
    """The tokens of a sequence that a language model predicts. An implementation need not import torch.

    `whole`: whether every held-out token is predicted exactly once, so that the loss converts to bits per byte.
    """

    whole: ClassVar[bool]

    def training(self, batch: dict[str, Tensor], *, seed: int, step: int, row: int) -> dict[str, Tensor]:
        """A training batch with its labels.

        :param step: number of completed optimizer steps.
        :param row: number of sequences before this batch in the same step, over all processes.
        """
        ...

    def held_out(self, rows: Any) -> Any:
        """The held-out sequences with their labels, the same at every evaluation."""
        ...


class NextToken:
    """Causal language modelling: every token is predicted from the previous ones."""

    whole: ClassVar[bool] = True

    def training(self, batch: dict[str, Tensor], *, seed: int, step: int, row: int) -> dict[str, Tensor]:
        return batch

    def held_out(self, rows: Any) -> Any:
        return rows


@dataclass(frozen=True)
class LanguageObjective(Objective[TrainSettings]):
    """Language modelling: a prepared text and the tokens to predict.

    :param tokenizer: by default that of the text.
    """

    text: Text
    target: Target = field(default_factory=NextToken)
    tokenizer: PreTrainedTokenizerBase | None = None
    head: ClassVar[str] = "causal-lm"

    @cached_property
    def companion(self) -> PreTrainedTokenizerBase:
        return self.text.tokenizer() if self.tokenizer is None else self.tokenizer

    @cached_property
    def held_out(self) -> Dataset:
        return self.text.held_out

    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        config = copy.deepcopy(config)
        config.bos_token_id = config.eos_token_id = self.companion.eos_token_id
        config.pad_token_id = None  # packed text has no padding, and the embedding of a padding token would stay 0
        return config

    def steps(self, settings: TrainSettings) -> tuple[int, int]:
        length = self.held_out[0]["input_ids"].numel()
        return settings.total_steps(length), settings.batch_size * length

    def beginning(self, settings: TrainSettings, seed: int) -> dict[str, Tensor]:
        count = settings.micro_batch_size or settings.batch_size
        rows = list(islice(self._train(settings.batch_size, seed), count))
        return self.target.training(collate(rows), seed=seed, step=0, row=0)

    def watched(self) -> dict[str, Any]:
        rows = self.target.held_out(self.held_out)
        return {
            "input_ids": collate([rows[index] for index in range(min(8, len(rows)))])["input_ids"],
            "logits_to_keep": 1,
        }

    def trainer(self, setup: TrainerSetup[TrainSettings]) -> PlacementTrainer:
        streamed = self.text.info.stream is not None
        position = _position(setup.parts.resume) if setup.parts.resume and streamed else START
        share = {"rank": ranks.rank(), "size": ranks.size(), "workers": setup.engine.data_workers, "begin": position}
        held_out = shared_out(self.held_out, per_process(setup.settings, ranks.size()) * ranks.size())
        return PlacementTrainer(
            args=TrainingArguments(**setup.parts.arguments, ignore_data_skip=streamed),
            target=self.target,
            position=position,
            train_dataset=self._train(setup.settings.batch_size, setup.seed, **share),
            eval_dataset=self.target.held_out(held_out),
            data_collator=collate,
            model=setup.model,
            settings=setup.settings,
            warmup_steps=setup.parts.warmup_steps,
            callbacks=setup.parts.callbacks,
        )

    def judge(self, metrics: MetricsFile) -> Assessment:
        loss, floor = metrics.curve("eval_loss")[-1][1], self.text.info.unigram_loss
        stalled = loss >= floor - STALL_MARGIN
        reason = f"held-out loss {loss:.3f} is not below the unigram baseline {floor:.3f} by {STALL_MARGIN:g} or more"
        return Assessment(
            status="stalled" if stalled else "finished",
            reason=reason if stalled else "",
            bits_per_byte=self.text.info.bits_per_byte(loss) if self.target.whole else None,
        )

    def _train(self, batch: int, seed: int, **share: Any) -> Any:
        """The training sequences.

        :param share: this process's share of a stream, see :class:`TokenStream`; by default all of it.
        """
        if self.text.info.stream is not None:
            return self.text.streamed(seed=seed, **share)
        train = self.text.train
        return train.select(range(len(train) // batch * batch))  # drops the incomplete last batch


def _position(checkpoint: Path) -> Position:
    path = checkpoint / PLACE.file
    try:
        return PLACE.read(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(unreadable(path, error, f"delete {checkpoint} to resume from the one before")) from error


def shared_out(rows: Dataset, multiple: int) -> Dataset:
    """The rows, padded with rows without labels to the same number for every process, so that no row is counted twice."""
    missing = -len(rows) % multiple if ranks.size() > 1 else 0
    if not missing:
        return rows
    import datasets

    blank = {name: [value.tolist()] * missing for name, value in rows[0].items()}
    blank["labels"] = [[IGNORED] * len(labels) for labels in blank["labels"]]
    added = datasets.Dataset.from_dict(blank, features=rows.features)
    return datasets.concatenate_datasets([rows, added.with_format("torch")])
