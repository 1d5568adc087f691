"""Reinforcement learning from a reward model with TRL's `RLOOTrainer` or `GRPOTrainer`. Shapes: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from mixln.data.examples import Row, alike
from mixln.hosts.sources import Source, device, identity, load
from mixln.training.lora import lora
from mixln.training.post_training_run import PostTrainingRun, mean, share
from mixln.training.reward import Scorer, load_reward
from mixln.training.run import TrainerParts
from mixln.training.settings import RlhfSettings
from mixln.training.trainers import FairTrainer


class Policy(FairTrainer):
    """The evaluation of both algorithms, with figures that do not depend on the reward model.

    Like TRL, the evaluation samples with `generation_config` and ends a completion at any of `eos_token_ids`.
    """

    scorer: Scorer
    pairs: list[Row]
    reference: Any
    generation_config: Any
    eos_token_ids: list[int]

    def measure(self) -> dict[str, float]:
        """Figures on the prompts of the held-out pairs, sampled with the same random numbers at every evaluation:

        reward    mean score of one sampled completion per prompt
        kl        mean over completions of Σ log π/π₀, nats per completion, at the sampling temperature
        length    mean tokens per completion
        accuracy  share of the pairs whose chosen answer is likelier than the rejected one; independent of the reward model
        """
        model: Any = self.accelerator.unwrap_model(self.model)
        tokenizer: Any = self.processing_class
        size, temperature = self.args.per_device_eval_batch_size, self.generation_config.temperature
        model.eval()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.args.seed)
            prompts = [row["prompt"] for row in self.pairs]
            completions = list(self._sampled(model, prompts, size))
            texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
            sequences = list(zip(tokenizer(prompts)["input_ids"], completions, strict=True))
            policy = log_likelihoods(model, sequences, size, temperature)
            with self._reference() as initial:
                reference = log_likelihoods(initial, sequences, size, temperature)
            likelihoods = {
                name: log_likelihoods(model, [_split(tokenizer, row["prompt"], row[name]) for row in self.pairs], size)
                for name in ("chosen", "rejected")
            }
        model.train()
        better = likelihoods["chosen"] - likelihoods["rejected"]
        right = (better > 0).sum().item() + (better == 0).sum().item() / 2  # a tie counts as half
        return {
            **mean("reward", self.scorer.scores([a + b for a, b in zip(prompts, texts, strict=True)])),
            **mean("kl", policy - reference),
            **mean("length", torch.tensor([len(tokens) for tokens in completions], dtype=torch.float64)),
            **share(right, len(self.pairs)),
        }

    def _sampled(self, model: Any, prompts: Sequence[str], size: int) -> Iterator[list[int]]:
        """One completion per prompt as token ids, including its end token."""
        tokenizer: Any = self.processing_class
        for start in range(0, len(prompts), size):
            inputs = tokenizer(
                list(prompts[start : start + size]), return_tensors="pt", padding=True, padding_side="left"
            ).to(model.device)
            sequences = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self.generation_config,
            )
            for ids in sequences[:, inputs["input_ids"].shape[1] :].tolist():
                ends = [index for index, token in enumerate(ids) if token in self.eos_token_ids]
                yield ids[: ends[0] + 1] if ends else ids

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        """The model at the start of the training, π₀."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if isinstance(model, PreTrainedModel):
            yield self.reference
        else:
            with model.disable_adapter():
                yield model


class RlooPolicy(Policy, RLOOTrainer):
    """TRL's leave-one-out REINFORCE with the schedule, weight decay and evaluation of :class:`FairTrainer`."""


class GrpoPolicy(Policy, GRPOTrainer):
    """TRL's group-relative policy optimization with the schedule, weight decay and evaluation of :class:`FairTrainer`."""


ALGORITHMS: dict[str, tuple[type[Policy], type[Any]]] = {
    "rloo": (RlooPolicy, RLOOConfig),
    "grpo": (GrpoPolicy, GRPOConfig),
}


@dataclass(frozen=True, kw_only=True)
class RlhfRun(PostTrainingRun[RlhfSettings]):
    """Trains a causal language model to maximize the reward of its completions, with a penalty on the KL divergence from its start.

    Its examples are of the kind `pairs`; training uses only their prompts.

    :param reward: the reward model.
    :param judge: the tokenizer of the reward model.
    """

    kind = "rlhf"
    patience = None  # the policy-gradient loss does not measure progress

    reward: Source
    judge: PreTrainedTokenizerBase

    def asked(self) -> dict[str, Any]:
        return super().asked() | {"reward_model": identity(self.reward)}

    def begin(self) -> None:
        self.tokenizer.padding_side = "left"  # a completion must follow its prompt directly
        super().begin()

    def scorer(self) -> Scorer:
        """The reward function."""
        size = self.settings.micro_batch_size or self.settings.batch_size
        return Scorer(load_reward(self.reward, device=device()), self.judge, batch_size=size)

    def steps(self) -> int:
        return self.settings.total_steps(len(self.examples.train) * self.settings.generations)

    def trainer(self, parts: TrainerParts) -> Policy:
        source, settings = self.source, self.settings
        scorer = self.scorer()
        trainer_class, config_class = ALGORITHMS[settings.algorithm]
        # All prompts of the training in one sequence, because TRL's order over several epochs is not reproduced on resuming.
        count = self.steps() * settings.batch_size // settings.generations
        prompts = in_order([row["prompt"] for row in self.examples.train], count, self.seed)
        model = load(source, dtype="float32", whole=True).train()
        model.config._name_or_path = source.path  # TRL loads the reference model from here
        trainer: Any = trainer_class(
            model=model,
            reward_funcs=scorer,
            args=config_class(
                **parts.arguments,
                num_generations=settings.generations,
                max_completion_length=settings.new_tokens,
                temperature=settings.temperature,
                beta=settings.beta,
                shuffle_dataset=False,
                gradient_checkpointing=False,
            ),
            processing_class=self.tokenizer,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            peft_config=lora(model, settings, task="CAUSAL_LM"),
            settings=settings,
            warmup_steps=parts.warmup_steps,
            callbacks=parts.callbacks,
        )
        trainer.scorer, trainer.pairs = scorer, self.examples.held_out
        trainer.reference = trainer.ref_model
        if trainer.reference is None and settings.lora is None:
            # TRL loads none if beta is 0, but the evaluation still measures the KL divergence.
            trainer.reference = load(source, dtype="float32", whole=True).to(trainer.accelerator.device)
        return trainer


def in_order(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` prompts: consecutive epochs, each shuffled differently."""
    generator, order = random.Random(seed), []
    while len(order) < count:
        order += generator.sample(prompts, len(prompts))
    return order[:count]


@torch.no_grad()
def log_likelihoods(
    model: Any, sequences: Sequence[tuple[list[int], list[int]]], size: int, temperature: float = 1.0
) -> Tensor:
    """Σ log p of the tokens of each completion given its prompt, nats.

    :param sequences: token ids of prompt and completion.
    :param size: sequences per forward pass.
    :param temperature: divisor of the logits.
    :returns: (N,), float64.
    """
    sums = []
    for start in range(0, len(sequences), size):
        batch = sequences[start : start + size]
        length = max(len(prompt) + len(completion) for prompt, completion in batch)
        ids_BT = torch.zeros(len(batch), length, dtype=torch.long)
        mask_BT, counted_BT = torch.zeros_like(ids_BT), torch.zeros(ids_BT.shape, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(batch):
            end = len(prompt) + len(completion)
            ids_BT[row, :end] = torch.tensor(prompt + completion)
            mask_BT[row, :end] = 1
            counted_BT[row, max(1, len(prompt)) : end] = True  # nothing predicts the first token of a sequence
        ids_BT, mask_BT, counted_BT = (tensor.to(model.device) for tensor in (ids_BT, mask_BT, counted_BT))
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        counted_BT, targets_BT = counted_BT[:, 1:], ids_BT[:, 1:]
        # Only for the N tokens of the completions: in float32, the logits of all tokens would take much memory.
        logs_NV = (logits_BTV[:, :-1][counted_BT].float() / temperature).log_softmax(dim=-1)
        logs_BT = torch.zeros(counted_BT.shape, device=logs_NV.device)
        logs_BT[counted_BT] = logs_NV.gather(-1, targets_BT[counted_BT][:, None]).squeeze(-1)
        sums.append(logs_BT.cpu().double().sum(dim=1))
    return torch.cat(sums)


def _split(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of its completion with an end-of-text token.

    Tokens can span the boundary; the completion then begins with the first token that differs from the prompt's own tokens.
    """
    ids = tokenizer(prompt + completion)["input_ids"] + [tokenizer.eos_token_id]
    common = alike(tokenizer(prompt)["input_ids"], ids)
    return ids[:common], ids[common:]
