"""Fine-tuning, reward model and reinforcement learning as steps: from a model that was found to a result in a folder, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixln.data.examples import Examples, examples
from mixln.data.settings import ExampleSettings
from mixln.errors import SettingsError
from mixln.hosts.sources import Say, Source, identity, tokenizer_of
from mixln.training.once import once
from mixln.training.outcome import Tuned
from mixln.training.settings import RlhfSettings, TuneSettings
from mixln.training.tuning import asked, room


def finetune_step(
    source: Source, data: ExampleSettings, settings: TuneSettings, folder: Path, *, seed: int, say: Say
) -> Tuned:
    """Fine-tunes a model on completions, unless `folder` holds the result; see :func:`mixln.training.finetune.finetune`.

    :raises SettingsError: if it is no decoder; :class:`DataError` for its tokenizer or the examples; :class:`StoreError` for the folder.
    """
    check_installed()
    _check_decoder(source)
    tokenizer = tokenizer_of(source, say=say)
    found = examples(data, "completions", tokenizer, longest=room(source.config))
    _tell(found, say)

    def work() -> Tuned:
        from mixln.training.finetune import finetune

        return finetune(source, tokenizer, found, settings, folder, seed=seed, say=say)

    return _once(folder, asked("finetune", source, found, asdict(settings), seed), work, say)


def reward_step(
    source: Source, data: ExampleSettings, settings: TuneSettings, folder: Path, *, seed: int, say: Say
) -> Tuned:
    """Trains a reward model on pairs, unless `folder` holds the result; see :func:`mixln.training.reward.train_reward`.

    :raises SettingsError: as :func:`finetune_step`, and as it the others.
    """
    check_installed()
    _check_decoder(source)
    tokenizer = tokenizer_of(source, say=say)
    found = examples(data, "pairs", tokenizer, longest=room(source.config))
    _tell(found, say)

    def work() -> Tuned:
        from mixln.training.reward import train_reward

        return train_reward(source, tokenizer, found, settings, folder, seed=seed, say=say)

    return _once(folder, asked("reward", source, found, asdict(settings), seed), work, say)


def rlhf_step(
    source: Source, reward: Source, data: ExampleSettings, settings: RlhfSettings, folder: Path, *, seed: int, say: Say
) -> Tuned:
    """Trains a model by a reward model, unless `folder` holds the result; see :func:`mixln.training.rlhf.rlhf`.

    :param reward: the reward model.
    :raises CheckpointError: if `reward` has no scalar head; the others as :func:`finetune_step`.
    """
    check_installed()
    from mixln.training.reward import Scorer, check_reward, load_reward

    _check_decoder(source)
    check_reward(reward)
    tokenizer, judge = tokenizer_of(source, say=say), tokenizer_of(reward, say=say)
    longest = min(room(source.config), room(reward.config))
    if settings.new_tokens + 1 >= longest:
        raise SettingsError(
            f"new-tokens must leave room for a prompt in the {longest:,} tokens of the model, got {settings.new_tokens}"
        )
    # What a policy may say is as long as it likes; the prompt must leave room for it.
    prompts = examples(data, "pairs", tokenizer, longest=longest - settings.new_tokens, parts=("prompt",))
    _tell(prompts, say)
    what = asked("rlhf", source, prompts, asdict(settings), seed) | {"reward_model": identity(reward)}

    def work() -> Tuned:
        from mixln.training.rlhf import rlhf

        size = settings.micro_batch_size or settings.batch_size
        scorer = Scorer(load_reward(reward), judge, batch_size=size)
        return rlhf(source, tokenizer, scorer, prompts, settings, folder, seed=seed, say=say)

    return _once(folder, what, work, say)


def _once(folder: Path, what: dict[str, Any], work: Callable[[], Tuned], say: Say) -> Tuned:
    result, was_there = once(folder, what, Tuned, work)
    if was_there:
        say("done already: nothing to train")
    return result


def check_installed() -> None:
    """:raises SettingsError: if the packages of these steps are not installed."""
    if missing := [name for name in ("trl", "peft") if find_spec(name) is None]:
        raise SettingsError(f'{" and ".join(missing)} must be installed for this; run pip install "mixln[tune]"')


def _check_decoder(source: Source) -> None:
    if source.task != "causal-lm":
        raise SettingsError(f"model {source.name} is no decoder with a language-model head; name one that is")


def _tell(found: Examples, say: Say) -> None:
    parts = [f"{len(found.train):,} to learn from", f"{len(found.held_out):,} held out"]
    if found.too_long:
        parts.append(f"{found.too_long:,} passed over: they are longer than the model's context")
    if found.removed:
        parts.append(f"{found.removed:,} left out: the evaluation asks them")
    say(f"examples: {found.description}; {'; '.join(parts)}")
