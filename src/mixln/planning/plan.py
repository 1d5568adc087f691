"""Plans a training run: model size, memory, operations and time, and the changes needed to make it fit."""

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
"""Bytes of each device reserved for the driver's context and libraries."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The requirements of a training run.

    :param parameters: number of parameters.
    :param without_embeddings: number of parameters outside the token embeddings and the head.
    :param memory: memory of one device.
    :param flops: operations per token.
    :param steps: optimizer steps per run.
    :param remedy: settings with the smallest change that makes it fit; `None` if it fits already or no change helps.
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
        """Training tokens per run."""
        return self.steps * self.settings.batch_size * self.settings.sequence_length

    @property
    def model_flops(self) -> int:
        """Model FLOPs per run."""
        return self.flops.model * self.tokens

    @property
    def executed_flops(self) -> int:
        """Hardware FLOPs per run, which include recomputation by activation checkpointing."""
        return self.flops.executed(self.settings.activation_checkpointing) * self.tokens

    @property
    def seconds(self) -> float:
        """Time per run in seconds: FLOPs / (devices × peak × utilisation). Evaluations and checkpoints are not included."""
        settings = self.settings
        return self.executed_flops / (settings.devices * settings.peak * 1e12 * settings.utilisation)

    @property
    def fits(self) -> bool:
        return fits(self.memory, self.settings)

    @property
    def remedy_options(self) -> str:
        """The remedy as command-line options, for example `--activation-checkpointing --micro-batch-size 8`; empty without one."""
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
    """Plans a training run. Takes seconds and little memory, regardless of the model's size.

    :raises SettingsError: if the model or placement is unknown, or the two do not fit together.
    """
    config = model_config(
        settings.model, vocabulary_size=settings.vocabulary_size, sequence_length=settings.sequence_length
    )
    with torch.device("meta"):
        model = build(config, placement=settings.placement, init=None, dtype=torch.float32)
    total, inner = parameters(model)
    memory = measure(config, settings)
    return Plan(
        settings=settings,
        parameters=total,
        without_embeddings=inner,
        memory=memory,
        flops=count_flops(model, settings.sequence_length),
        steps=settings.total_steps(total),
        remedy=None if fits(memory, settings) else first_that_fits(config, settings),
    )


def fits(memory: Memory, settings: PlanSettings) -> bool:
    """Whether the memory and :data:`RESERVE` together fit on a device."""
    return memory.total + RESERVE <= settings.memory


def first_that_fits(config: PreTrainedConfig, settings: PlanSettings) -> PlanSettings | None:
    """The first change that makes a run fit: a smaller micro-batch; then FSDP; then activation checkpointing; then both.

    Each is tried with the largest micro-batch that fits.
    """
    for change in _changes(settings):
        fit = dataclasses.replace(change, micro_batch_size=1)
        if not fits(measure(config, fit), fit):
            continue
        sizes = [size for size in range(2, change.micro_batch + 1) if change.share % size == 0]
        while sizes:  # binary search: memory grows with the micro-batch
            middle = len(sizes) // 2
            tried = dataclasses.replace(change, micro_batch_size=sizes[middle])
            if fits(measure(config, tried), tried):
                fit, sizes = tried, sizes[middle + 1 :]
            else:
                sizes = sizes[:middle]
        return fit
    return None


def _changes(settings: PlanSettings) -> list[PlanSettings]:
    """The settings to try, smallest change first."""
    changes = [settings]
    if settings.devices > 1:
        changes.append(dataclasses.replace(settings, parallel="fsdp"))
    changes += [dataclasses.replace(change, activation_checkpointing=True) for change in changes]
    return list(dict.fromkeys(changes))
