"""Reward models: training on preference pairs with TRL's `RewardTrainer`, loading, and scoring."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from mixln.errors import CheckpointError, MixlnError, first_line
from mixln.hosts.sources import (
    Source,
    check_stored,
    prepare,
    refuse_incomplete,
    refuse_pickle,
    stored_at,
)
from mixln.quiet import quiet
from mixln.training.lengths import split
from mixln.training.lora import lora
from mixln.training.post_training_run import PostTrainingRun, mean, share, with_padding
from mixln.training.run import TrainerParts
from mixln.training.settings import PostTrainingSettings
from mixln.training.trainers import FairTrainer

MEANS = ("accuracy", "margin", "mean_reward")
"""Metrics that TRL records for each forward pass, as means over its pairs."""
HEAD = "score"
"""Name of the head of a sequence classifier in transformers."""


class RewardTuner(FairTrainer, RewardTrainer):
    """TRL's `RewardTrainer` with the schedule, weight decay and evaluation of :class:`FairTrainer`.

    On a processor, a batch passes in parts of similar length, as in :class:`~mixln.training.finetune.FineTuner`.
    """

    weight = 1.0
    """Share of the batch's pairs that are in the current part. The loss is a mean over pairs, so this is the weight of the part's loss."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        model, batch, *more = args  # as the Trainer calls it
        parts = split(batch, answers=2) if self.args.use_cpu else [batch]
        weights = [len(part["input_ids"]) / len(batch["input_ids"]) for part in parts]
        losses = []
        for part, self.weight in zip(parts, weights, strict=True):
            losses.append(super().training_step(model, part, *more, **kwargs))
        self.weight = 1.0
        for name in MEANS:  # TRL has recorded one value for each part
            recorded = self._metrics["train"][name]
            recorded[-len(parts) :] = [sum(map(mul, recorded[-len(parts) :], weights))]
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = self.weight * loss
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """On the held-out pairs: the loss −log σ(margin), the accuracy (the chosen answer scores higher), and the mean margin."""
        self.model.eval()  # type: ignore[union-attr]
        differences = []
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            scores = self.model(  # type: ignore[operator,misc]
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits[:, 0]
            chosen, rejected = scores.float().cpu().chunk(2)  # TRL's collator puts all chosen answers first
            differences.append(chosen - rejected)
        self.model.train()  # type: ignore[union-attr]
        margins = torch.cat(differences).double()
        right = (margins > 0).sum().item() + (margins == 0).sum().item() / 2  # a tie counts as half
        return {
            "loss": -F.logsigmoid(margins).mean().item(),
            **share(right, len(margins)),
            **mean("margin", margins),
        }


@dataclass(frozen=True, kw_only=True)
class RewardRun(PostTrainingRun[PostTrainingSettings]):
    """Replaces the language-modelling head by a scalar head and trains it to score chosen answers above rejected ones.

    Its examples are of the kind `pairs`.
    """

    kind = "reward"

    def steps(self) -> int:
        return self.settings.total_steps(len(self.examples.train))

    def trainer(self, parts: TrainerParts) -> RewardTuner:
        model = with_scalar_head(self.source, seed=self.seed)
        return RewardTuner(
            model=model,
            args=RewardConfig(**parts.arguments, max_length=None, gradient_checkpointing=False),
            processing_class=self.tokenizer,
            train_dataset=Dataset.from_list(self.examples.train),
            eval_dataset=Dataset.from_list(self.examples.held_out),
            peft_config=lora(model, self.settings, task="SEQ_CLS", head=HEAD),
            settings=self.settings,
            warmup_steps=parts.warmup_steps,
            callbacks=parts.callbacks,
        )


def with_scalar_head(source: Source, *, seed: int) -> PreTrainedModel:
    """The body of a causal language model with a new scalar head.

    :raises CheckpointError: if the checkpoint cannot be loaded completely.
    """
    prepare(source)
    set_seed(seed)
    model, info = _classifier(source, f"model {source.name}", num_labels=1)
    head = next(name for name, _ in reversed(list(model.named_children())))
    refuse_incomplete(source, {**info, "missing_keys": {k for k in info["missing_keys"] if not k.startswith(head)}})
    return model.train()


def _classifier(source: Source, name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The checkpoint as a sequence classifier, and transformers' loading info.

    :param changes: config entries to override.
    """
    refuse_pickle(source)
    where = stored_at(source)
    config = where["config"] = copy.deepcopy(source.config)
    for entry, value in changes.items():
        setattr(config, entry, value)
    with quiet():
        try:
            check_stored(source, AutoModelForSequenceClassification, config)
            return AutoModelForSequenceClassification.from_pretrained(
                source.path,
                **where,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except MixlnError:
            raise
        except Exception as error:  # transformers raises many types for a corrupt checkpoint
            raise CheckpointError(
                f"{name} cannot be loaded: {first_line(error)}; repair or download it again"
            ) from error


def load_reward(source: Source, *, device: str = "cpu") -> PreTrainedModel:
    """Loads a reward model in evaluation mode.

    :raises CheckpointError: if the checkpoint has no scalar head or is incomplete.
    """
    check_reward(source)
    model, info = _classifier(source, f"reward-model {source.name}")
    if info["missing_keys"]:
        raise CheckpointError(
            f"reward-model {source.name} is incomplete: weight {min(info['missing_keys'])} is missing; save or download it again"
        )
    return model.to(device).eval()


def check_reward(source: Source) -> None:
    """:raises CheckpointError: if the checkpoint was not saved with a scalar head."""
    architecture = (source.config.architectures or [""])[0]
    if not architecture.endswith("ForSequenceClassification") or source.config.num_labels != 1:
        outputs = f" with {source.config.num_labels} outputs" if "Classification" in architecture else ""
        raise CheckpointError(
            f"reward-model {source.name} is a {architecture or 'model without a head'}{outputs}, not a model with a scalar head; "
            "train one with mixln reward"
        )


class Scorer:
    """Scores of a reward model. An end-of-text token is appended to each text, as in its training."""

    __name__ = "reward"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int) -> None:
        self.model = model
        self.tokenizer = with_padding(tokenizer)
        self.batch_size = batch_size
        model.config.pad_token_id = tokenizer.pad_token_id

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """One score per text, in the signature of TRL's reward functions."""
        return self.scores([a + b for a, b in zip(prompts, completions, strict=True)]).tolist()

    @torch.no_grad()
    def scores(self, texts: Sequence[str]) -> Tensor:
        """:returns: (N,), float64."""
        end = str(self.tokenizer.eos_token)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding in each batch
        scores = torch.empty(len(texts), dtype=torch.float64)
        for start in range(0, len(texts), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = [text if text.endswith(end) else text + end for text in (texts[index] for index in chosen)]
            inputs = self.tokenizer(batch, return_tensors="pt", padding=True, padding_side="right").to(
                self.model.device
            )
            logits = self.model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits
            scores[chosen] = logits[:, 0].double().cpu()
        return scores
