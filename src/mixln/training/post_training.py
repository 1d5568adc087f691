"""Fine-tuning, reward model and reinforcement learning as steps: from a model that was found to a result in a folder, once."""

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

    :raises SettingsError: if it is no decoder; :class:`DataError` for its tokenizer or the examples; :class:`StoreError` for the folder.
    """
    settings = _ready(source, settings)
    from mixln.training.finetune import FinetuningRun

    tokenizer = with_padding(tokenizer_of(source))
    log.info(f"examples: reading {data.data}")
    found = completions(data, settings, tokenizer, source.config)
    training = FinetuningRun(
        source=source, tokenizer=tokenizer, examples=found, settings=settings, folder=folder, seed=seed
    )
    return _once(training)


def reward_step(
    source: Source, data: ExampleSettings, settings: PostTrainingSettings, folder: Path, *, seed: int
) -> PostTrainingOutcome:
    """Trains a reward model on pairs, unless `folder` holds the result; see :class:`~mixln.training.reward.RewardRun`.

    :raises CheckpointError: if the family has no sequence classifier; the others as :func:`finetune_step`.
    """
    settings = _ready(source, settings)
    from mixln.training.reward import RewardRun

    check_classifier(source.config, f"model {source.name}")
    tokenizer = with_padding(tokenizer_of(source))
    log.info(f"examples: reading {data.data}")
    found = pairs(data, settings, tokenizer, source.config)
    training = RewardRun(
        source=source, tokenizer=tokenizer, examples=found, settings=settings, folder=folder, seed=seed
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
    """Trains a model by a reward model, unless `folder` holds the result; see :class:`~mixln.training.rlhf.RlhfRun`.

    :param reward: the reward model.
    :raises CheckpointError: if `reward` has no scalar head; the others as :func:`finetune_step`.
    """
    settings = _ready(source, settings)
    from mixln.training.reward import check_reward
    from mixln.training.rlhf import RlhfRun

    check_reward(reward)
    tokenizer, judge = (with_padding(tokenizer_of(each)) for each in (source, reward))
    log.info(f"examples: reading {data.data}")
    found = rlhf_pairs(data, settings, tokenizer, source.config, judge, reward.config)
    training = RlhfRun(
        source=source,
        tokenizer=tokenizer,
        examples=found,
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
    """What fine-tuning learns from."""
    fit = rooms("completions", tokenizer, room(config))
    return examples(data, "completions", tokenizer, fit, most=_needed(settings))


def pairs(data: ExampleSettings, settings: PostTrainingSettings, tokenizer: Any, config: PreTrainedConfig) -> Examples:
    """What a reward model learns from."""
    return examples(data, "pairs", tokenizer, rooms("pairs", tokenizer, room(config)), most=_needed(settings))


def rlhf_pairs(
    data: ExampleSettings,
    settings: RlhfSettings,
    tokenizer: Any,
    config: PreTrainedConfig,
    judge: Any,
    judge_config: PreTrainedConfig,
) -> Examples:
    """What reinforcement learning takes prompts from: they leave room for a completion, in the policy and in its judge.

    :raises SettingsError: if there is room for no prompt.
    """
    limits = [(tokenizer, room(config)), (judge, room(judge_config))]
    if settings.new_tokens + 1 >= min(tokens for _, tokens in limits):
        raise SettingsError(
            f"new-tokens must leave room for a prompt in the {min(tokens for _, tokens in limits):,} tokens of the model, "
            f"got {settings.new_tokens}"
        )
    fit = [
        need
        for each, tokens in limits
        for need in (
            ContextBudget(tokenizer=each, columns=("prompt",), tokens=tokens - settings.new_tokens),
            *rooms("pairs", each, tokens),
        )
    ]
    needed = _needed(settings)
    return examples(data, "pairs", tokenizer, fit, most=needed and needed // settings.generations)


def _needed(settings: PostTrainingSettings) -> int | None:
    """Examples that a training of so many steps sees; `None` where its steps follow from the examples."""
    return settings.steps and settings.steps * settings.batch_size


def check_classifier(config: PreTrainedConfig, name: str) -> None:
    """:raises CheckpointError: if the family has no sequence classifier, which a reward model is."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise CheckpointError(
            f"{name}: transformers has no sequence classifier of the family {config.model_type!r}, which a reward model needs; "
            "name a model of another"
        )


def check_possible() -> None:
    """:raises SettingsError: if the packages of these steps are not installed, or this is one of several processes."""
    if launched()[1] > 1:
        raise SettingsError("this trains in one process; start it without torchrun or accelerate launch")
    if missing := [name for name in ("trl", "peft") if find_spec(name) is None]:
        raise SettingsError(f'{" and ".join(missing)} must be installed for this; run pip install "mixln[tune]"')


def _ready(source: Source, settings: T) -> T:
    """The settings with nothing left to this machine's choice, of a model that can be trained here."""
    check_possible()
    if source.task != "causal-lm":
        raise SettingsError(f"model {source.name} is no decoder with a language-model head; name one that is")
    ranks.check_one_gpu()
    return replace(settings, precision=resolve(settings.precision))


def _once(training: PostTrainingRun[Any]) -> PostTrainingOutcome:
    """Trains, unless the folder holds the result."""
    _tell(training.examples)
    work = partial(run, training)
    result, was_there = RunFolder(training.folder, TUNING_RUN).once(training.asked(), work, training.leaves)
    if was_there:
        remedy = "" if result.status == "finished" else "; to try again, change a setting and --out"
        log.info(f"this has been done already: nothing to train{remedy}")
    clear(training.folder / CHECKPOINTS)  # there is nothing to go on with any more
    return result


def _tell(found: Examples) -> None:
    parts = [f"{len(found.train):,} to learn from", f"{len(found.held_out):,} held out"]
    if found.too_long:
        parts.append(f"{found.too_long:,} passed over: they are longer than the model's context")
    if found.removed:
        parts.append(f"{found.removed:,} of the whole set left out: the evaluation asks them")
    log.info(f"examples: {found.description}; {'; '.join(parts)}")
