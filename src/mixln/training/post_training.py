"""Fine-tuning, reward modelling and reinforcement learning as idempotent steps: from a source model to a result in a folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig

from mixln.data.examples import ContextBudget, Examples, examples, rooms
from mixln.data.settings import ExampleSettings
from mixln.errors import CheckpointError, SettingsError
from mixln.hosts.configs import text_part
from mixln.hosts.sources import Source, tokenizer_of
from mixln.launch import launched
from mixln.runs.checkpoints import clear
from mixln.runs.folder import RunFolder
from mixln.runs.outcome import PostTrainingOutcome
from mixln.training import ranks
from mixln.training.post_training_run import CHECKPOINTS, TUNING_RUN, PostTrainingRun, room, with_padding
from mixln.training.precision import resolve
from mixln.training.run import run
from mixln.training.settings import PostTrainingSettings, RlhfSettings

log = logging.getLogger(__name__)

T = TypeVar("T", bound=PostTrainingSettings)


def finetune_step(
    source: Source, data: ExampleSettings, settings: PostTrainingSettings, folder: Path, *, seed: int
) -> PostTrainingOutcome:
    """Fine-tunes a model on completions, unless `folder` holds the result; see :class:`~mixln.training.finetune.FinetuningRun`.

    :raises SettingsError: if the model is not a decoder; :class:`DataError` for its tokenizer or the examples; :class:`StoreError`
        for the folder.
    """
    settings = _ready(source, settings)
    from mixln.training.finetune import FinetuningRun

    tokenizer = with_padding(tokenizer_of(source))
    log.info(f"examples: reading {data.data}")
    texts = completions(data, settings, tokenizer, source.config)
    training = FinetuningRun(
        source=source, tokenizer=tokenizer, examples=texts, settings=settings, folder=folder, seed=seed
    )
    return _once(training)


def reward_step(
    source: Source, data: ExampleSettings, settings: PostTrainingSettings, folder: Path, *, seed: int
) -> PostTrainingOutcome:
    """Trains a reward model on pairs, unless `folder` holds the result; see :class:`~mixln.training.reward.RewardRun`.

    :raises CheckpointError: if the family has no sequence classifier; otherwise as for :func:`finetune_step`.
    """
    settings = _ready(source, settings)
    from mixln.training.reward import RewardRun

    check_classifier(source.config, f"model {source.name}")
    tokenizer = with_padding(tokenizer_of(source))
    log.info(f"examples: reading {data.data}")
    texts = pairs(data, settings, tokenizer, source.config)
    training = RewardRun(
        source=source, tokenizer=tokenizer, examples=texts, settings=settings, folder=folder, seed=seed
    )
    return _once(training)


def rlhf_step(
    source: Source,
    reward: Source,
    data: ExampleSettings,
    settings: RlhfSettings,
    folder: Path,
    *,
    seed: int,
) -> PostTrainingOutcome:
    """Trains a model with a reward model, unless `folder` holds the result; see :class:`~mixln.training.rlhf.RlhfRun`.

    :param reward: the reward model.
    :raises CheckpointError: if `reward` has no scalar head; otherwise as for :func:`finetune_step`.
    """
    settings = _ready(source, settings)
    from mixln.training.reward import check_reward
    from mixln.training.rlhf import RlhfRun

    check_reward(reward)
    tokenizer, judge = (with_padding(tokenizer_of(model)) for model in (source, reward))
    log.info(f"examples: reading {data.data}")
    texts = rlhf_pairs(data, settings, tokenizer, source.config, judge, reward.config)
    training = RlhfRun(
        source=source,
        tokenizer=tokenizer,
        examples=texts,
        settings=settings,
        folder=folder,
        seed=seed,
        reward=reward,
        judge=judge,
    )
    return _once(training)


def completions(
    data: ExampleSettings, settings: PostTrainingSettings, tokenizer: Any, config: PreTrainedConfig
) -> Examples:
    """The completions for fine-tuning."""
    fit = rooms("completions", tokenizer, room(config))
    return examples(data, "completions", tokenizer, fit, most=_needed(settings))


def pairs(data: ExampleSettings, settings: PostTrainingSettings, tokenizer: Any, config: PreTrainedConfig) -> Examples:
    """The preference pairs for a reward model."""
    return examples(data, "pairs", tokenizer, rooms("pairs", tokenizer, room(config)), most=_needed(settings))


def rlhf_pairs(
    data: ExampleSettings,
    settings: RlhfSettings,
    tokenizer: Any,
    config: PreTrainedConfig,
    judge: Any,
    judge_config: PreTrainedConfig,
) -> Examples:
    """The preference pairs whose prompts reinforcement learning uses, short enough for a completion in policy and reward model.

    :raises SettingsError: if `new_tokens` leaves no room for a prompt.
    """
    limits = [(tokenizer, room(config)), (judge, room(judge_config))]
    if settings.new_tokens + 1 >= min(tokens for _, tokens in limits):
        raise SettingsError(
            f"new-tokens must leave room for a prompt in the {min(tokens for _, tokens in limits):,} tokens of the model, "
            f"got {settings.new_tokens}"
        )
    fit = [
        need
        for encoder, tokens in limits
        for need in (
            ContextBudget(tokenizer=encoder, columns=("prompt",), tokens=tokens - settings.new_tokens),
            *rooms("pairs", encoder, tokens),
        )
    ]
    needed = _needed(settings)  # completions, of which each prompt gets `generations`
    return examples(data, "pairs", tokenizer, fit, most=needed and needed // settings.generations)


def _needed(settings: PostTrainingSettings) -> int | None:
    """Number of examples that `settings.steps` steps use; `None` if the number of steps depends on the examples."""
    return settings.steps and settings.steps * settings.batch_size


def check_classifier(config: PreTrainedConfig, name: str) -> None:
    """:raises CheckpointError: if transformers has no sequence classifier of the family, which a reward model requires."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise CheckpointError(
            f"{name}: transformers has no sequence classifier for the family {config.model_type!r}, which a reward model needs; "
            "name a model of another family"
        )


def check_possible() -> None:
    """:raises SettingsError: if a required package is not installed, or this is one of several processes."""
    if launched()[1] > 1:
        raise SettingsError("post-training runs in one process; start it without torchrun or accelerate launch")
    if missing := [name for name in ("trl", "peft") if find_spec(name) is None]:
        raise SettingsError(f'post-training needs {" and ".join(missing)}; run pip install "mixln[tune]"')


def _ready(source: Source, settings: T) -> T:
    """The settings with the precision resolved for this machine, after checking that the model can be trained here."""
    check_possible()
    check_decoder(source)
    ranks.check_one_gpu()
    return replace(settings, precision=resolve(settings.precision))


def check_decoder(source: Source) -> None:
    """:raises SettingsError: if a model is not a language model of text alone."""
    if source.task != "causal-lm":
        raise SettingsError(f"model {source.name} is not a decoder with a language-modelling head; name one that is")
    if text_part(source.config) is not source.config:
        raise SettingsError(
            f"model {source.name} also takes images, and cannot be trained here; name one that takes text only"
        )


def _once(training: PostTrainingRun[Any]) -> PostTrainingOutcome:
    """Trains, or returns the result that the folder already holds."""
    _log_counts(training.examples)
    work = partial(run, training)
    result, existed = RunFolder(training.folder, TUNING_RUN).once(training.asked(), work, training.leaves)
    if existed:
        remedy = "" if result.status == "finished" else "; to train again, change a setting and --out"
        log.info(f"already complete: nothing to train{remedy}")
    clear(training.folder / CHECKPOINTS)  # the result is final; nothing resumes from them
    return result


def _log_counts(texts: Examples) -> None:
    parts = [f"{len(texts.train):,} for training", f"{len(texts.held_out):,} held out"]
    if texts.too_long:
        parts.append(f"{texts.too_long:,} skipped: longer than the model's context")
    if texts.removed:
        parts.append(f"{texts.removed:,} removed from the complete set: they are evaluation questions")
    log.info(f"examples: {texts.description}; {'; '.join(parts)}")
