"""Supervised fine-tuning on prompts and completions, by TRL's `SFTTrainer`."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from mixln.hosts.sources import load
from mixln.runs.outcome import Tuned
from mixln.training.lora import lora
from mixln.training.settings import TuneSettings
from mixln.training.trainers import EqualTerms
from mixln.training.tuning import Training, tune


class FineTuner(EqualTerms, SFTTrainer):
    """TRL's trainer of completions, on equal terms."""


def finetune(training: Training[TuneSettings]) -> Tuned:
    """Trains a causal language model on completions: the loss is taken on them alone, their end of text included.

    :param training: its examples are of the kind `completions`.
    """
    tokenizer, settings, examples = training.tokenizer, training.settings, training.examples

    def make(arguments: dict[str, Any], **shared: Any) -> FineTuner:
        model = load(training.source, dtype="float32", whole=True, say=training.say).train()
        return FineTuner(
            model=model,
            args=SFTConfig(**arguments, max_length=None, completion_only_loss=True, gradient_checkpointing=False),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(examples.train),
            eval_dataset=Dataset.from_list(examples.held_out),
            peft_config=lora(model, settings, task="CAUSAL_LM"),
            **shared,
        )

    texts = [row["prompt"] + row["completion"] for row in examples.train[:256]]
    length = sum(map(len, tokenizer(texts)["input_ids"])) / len(texts)
    steps = settings.total_steps(len(examples.train))
    return tune(training, make, steps=steps, tokens_per_step=length * settings.batch_size)
