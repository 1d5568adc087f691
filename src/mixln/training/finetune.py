"""Supervised fine-tuning on prompts and completions, by TRL's `SFTTrainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from mixln.data.examples import Examples
from mixln.hosts.sources import Say, Source, load, silent
from mixln.training.lora import lora
from mixln.training.outcome import Tuned
from mixln.training.settings import TuneSettings
from mixln.training.trainers import EqualTerms
from mixln.training.tuning import rows, tune, with_padding


class FineTuner(EqualTerms, SFTTrainer):
    """TRL's trainer of completions, on equal terms."""


def finetune(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    settings: TuneSettings,
    folder: Path,
    *,
    seed: int,
    say: Say = silent,
    checkpoint_seconds: float = 60.0,
) -> Tuned:
    """Trains a causal language model on completions: the loss is taken on them alone, their end of text included.

    :param tokenizer: the model's.
    :param examples: of the kind `completions`.
    :param folder: where everything of this training lies; the model in `model`.
    """
    with_padding(tokenizer)

    def make(arguments: dict[str, Any], **shared: Any) -> FineTuner:
        model = load(source, dtype="float32", whole=True, say=say).train()
        return FineTuner(
            model=model,
            args=SFTConfig(**arguments, max_length=None, completion_only_loss=True, gradient_checkpointing=False),
            processing_class=tokenizer,
            train_dataset=rows(examples.train),
            eval_dataset=rows(examples.held_out),
            peft_config=lora(model, settings, task="CAUSAL_LM"),
            **shared,
        )

    texts = [row["prompt"] + row["completion"] for row in examples.train[:256]]
    length = sum(map(len, tokenizer(texts)["input_ids"])) / len(texts)
    return tune(
        make,
        tokenizer=tokenizer,
        examples=examples,
        settings=settings,
        folder=folder,
        seed=seed,
        steps=settings.total_steps(len(examples.train)),
        tokens_per_step=length * settings.batch_size,
        say=say,
        checkpoint_seconds=checkpoint_seconds,
    )
