"""A plan: size, memory, operations and time of a training, and what to change where it does not fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from mixln.hosts import build
from mixln.planning.flops import Flops, count_flops, parameters
from mixln.planning.memory import Memory, measure
from mixln.planning.settings import PlanSettings
from mixln.presets import model_config

RESERVE = 10**9
"""Bytes of a device that a plan leaves free for the driver's context and its libraries."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will need.

    :param parameters: of the model.
    :param without_embeddings: those that are neither token embeddings nor the head.
    :param memory: of one device.
    :param flops: for one token.
    :param steps: optimizer steps of one training.
    :param remedy: the least change with which it fits; `None` where it fits as it is, or where nothing here helps.
    """

    settings: PlanSettings
    parameters: int
    without_embeddings: int
    memory: Memory
    flops: Flops
    steps: int
    remedy: PlanSettings | None

    @property
    def tokens(self) -> int:
        """Training tokens of one training."""
        return self.steps * self.settings.batch_size * self.settings.sequence_length

    @property
    def model_flops(self) -> int:
        """Operations that one training asks for."""
        return self.flops.model * self.tokens

    @property
    def executed_flops(self) -> int:
        """Operations that the devices compute in one training; more with activation checkpointing."""
        return self.flops.executed(self.settings.activation_checkpointing) * self.tokens

    @property
    def seconds(self) -> float:
        """Time of one training: operations / (devices × peak × utilisation). Evaluations and checkpoints are not in it."""
        settings = self.settings
        return self.executed_flops / (settings.devices * settings.peak * 1e12 * settings.utilisation)

    @property
    def fits(self) -> bool:
        return fits(self.memory, self.settings)

    @property
    def remedy_options(self) -> str:
        """The remedy as one types it: `--activation-checkpointing --micro-batch-size 8`; nothing if there is none."""
        now, then = self.settings, self.remedy
        if then is None:
            return ""
        options = (
            f"--parallel {then.parallel}" if then.parallel != now.parallel else "",
            "--activation-checkpointing" if then.activation_checkpointing != now.activation_checkpointing else "",
            f"--micro-batch-size {then.micro_batch}" if then.micro_batch != now.micro_batch else "",
        )
        return " ".join(option for option in options if option)


def make_plan(settings: PlanSettings) -> Plan:
    """Plans a training. Takes seconds, and no memory to speak of, whatever the model's size.

    :raises SettingsError: if there is no such model or placement, or the two do not go together.
    """
    config = model_config(
        settings.model, vocabulary_size=settings.vocabulary_size, sequence_length=settings.sequence_length
    )
    with torch.device("meta"):
        model = build(config, placement=settings.placement, init=None, dtype=torch.float32)
    everything, inside = parameters(model)
    memory = measure(config, settings)
    return Plan(
        settings=settings,
        parameters=everything,
        without_embeddings=inside,
        memory=memory,
        flops=count_flops(model, settings.sequence_length),
        steps=settings.total_steps(everything),
        remedy=None if fits(memory, settings) else first_that_fits(config, settings),
    )


def fits(memory: Memory, settings: PlanSettings) -> bool:
    """Whether a device has so much, and :data:`RESERVE` besides."""
    return memory.total + RESERVE <= settings.memory


def first_that_fits(config: PreTrainedConfig, settings: PlanSettings) -> PlanSettings | None:
    """The least change with which a training fits: a smaller micro batch; else FSDP; else activation checkpointing; else both.

    Of each, the largest micro batch that fits.
    """
    for change in _changes(settings):
        fit = dataclasses.replace(change, micro_batch_size=1)
        if not fits(measure(config, fit), fit):
            continue
        sizes = [size for size in range(2, change.micro_batch + 1) if change.share % size == 0]
        while sizes:  # memory grows with the micro batch: halve the list of sizes until it is empty
            middle = len(sizes) // 2
            tried = dataclasses.replace(change, micro_batch_size=sizes[middle])
            if fits(measure(config, tried), tried):
                fit, sizes = tried, sizes[middle + 1 :]
            else:
                sizes = sizes[:middle]
        return fit
    return None


def _changes(settings: PlanSettings) -> list[PlanSettings]:
    """What to try, the least change first."""
    changes = [settings]
    if settings.devices > 1:
        changes.append(dataclasses.replace(settings, parallel="fsdp"))
    changes += [dataclasses.replace(change, activation_checkpointing=True) for change in changes]
    return list(dict.fromkeys(changes))
