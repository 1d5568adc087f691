"""Supervised fine-tuning on prompts and completions, by TRL's `SFTTrainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from mixln.hosts.sources import load
from mixln.training.lengths import split
from mixln.training.lora import lora
from mixln.training.post_training_run import PostTrainingRun
from mixln.training.run import TrainerParts
from mixln.training.settings import PostTrainingSettings
from mixln.training.trainers import FairTrainer


class FineTuner(FairTrainer, SFTTrainer):
    """TRL's `SFTTrainer` with the schedule, weight decay and evaluation of :class:`FairTrainer`.

    On a processor, a batch passes in parts of similar length, because padding costs as much as text there. Each part's loss is divided
    by the batch's number of tokens, so without dropout the gradients of the parts add up to the batch's. With dropout, other masks are
    drawn.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        model, batch, tokens = args  # as the Trainer calls it
        # The load-balancing loss of experts is a mean over the batch; the losses of parts do not add up to it.
        whole = tokens is None or self.aux_loss_enabled or not self.args.use_cpu
        losses = []
        for part in [batch] if whole else split(batch):
            losses.append(super().training_step(model, part, tokens, **kwargs))
        return torch.stack(losses).sum()


@dataclass(frozen=True, kw_only=True)
class FinetuningRun(PostTrainingRun[PostTrainingSettings]):
    """Trains a causal language model on completions. The loss covers the completion and its end-of-text token, not the prompt.

    Its examples are of the kind `completions`.
    """

    kind = "finetune"

    def steps(self) -> int:
        return self.settings.total_steps(len(self.examples.train))

    @property
    def tokens_per_step(self) -> float:
        texts = [row["prompt"] + row["completion"] for row in self.examples.train[:256]]
        return sum(map(len, self.tokenizer(texts)["input_ids"])) / len(texts) * self.settings.batch_size

    def trainer(self, parts: TrainerParts) -> FineTuner:
        model = load(self.source, dtype="float32", whole=True).train()
        # No max_length: examples that exceed the context were skipped when they were read, and nothing is to be truncated.
        options = {"max_length": None, "completion_only_loss": True, "gradient_checkpointing": False}
        return FineTuner(
            model=model,
            args=SFTConfig(**parts.arguments, **options),
            processing_class=self.tokenizer,
            train_dataset=Dataset.from_list(self.examples.train),
            eval_dataset=Dataset.from_list(self.examples.held_out),
            peft_config=lora(model, self.settings, task="CAUSAL_LM"),
            settings=self.settings,
            warmup_steps=parts.warmup_steps,
            callbacks=parts.callbacks,
        )
