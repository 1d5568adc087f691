"""The settings of a plan, and what accelerators can do at most; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mixln.bounds import Batch, Count, Length, Processes, Range, Steps, Tokens, Vocabulary, check_numbers
from mixln.errors import SettingsError
from mixln.placement import canonical

Precision = Literal["float32", "bfloat16"]

TABLE_7: dict[str, int] = {"71m": 10_000, "130m": 20_000, "250m": 40_000, "1b": 100_000, "7b": 13_000}
"""Preset → optimizer steps in the Mix-LN paper (arXiv:2412.13795, Table 7; of the 7B model, as far as its curve is shown)."""

MOST_AT_ONCE = 2**20
"""Tokens of a forward pass on one device: more than fits into any; their count takes about a minute."""
TOKENS_PER_PARAMETER = 20
"""How long the other sizes train where nothing is asked for (Hoffmann et al., arXiv:2203.15556)."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, by its vendor's data sheet.

    :param bfloat16: peak of dense matrix products, TFLOP/s; the figures with sparsity are twice that.
    :param float32: peak in plain float32, TFLOP/s: PyTorch does not use TF32 unless it is told to.
    :param memory: GB, 10⁹ bytes.
    """

    title: str
    bfloat16: float
    float32: float
    memory: float

    def tflops(self, precision: Precision) -> float:
        """The peak in one of the two formats."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


DEVICES: dict[str, Device] = {
    "h100": Device(title="NVIDIA H100 SXM", bfloat16=989.0, float32=67.0, memory=80.0),
    "h200": Device(title="NVIDIA H200 SXM", bfloat16=989.0, float32=67.0, memory=141.0),
    "a100": Device(title="NVIDIA A100 80GB", bfloat16=312.0, float32=19.5, memory=80.0),
    "a100-40gb": Device(title="NVIDIA A100 40GB", bfloat16=312.0, float32=19.5, memory=40.0),
    "l40s": Device(title="NVIDIA L40S", bfloat16=362.0, float32=91.6, memory=48.0),
    "rtx4090": Device(title="NVIDIA GeForce RTX 4090", bfloat16=165.2, float32=82.6, memory=24.0),
}
"""From NVIDIA's data sheets of the H100, H200, A100 and L40S, and its Ada architecture paper for the RTX 4090."""

UTILISATION = 0.3
"""Share of a GPU's peak that recipes assume for the time of a training."""

DeviceName = Literal["h100", "h200", "a100", "a100-40gb", "l40s", "rtx4090"]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Say what a pre-training will need: parameters, memory of each device, tokens, FLOPs and time.

    Nothing is allocated: one training step runs on tensors without data, and its peak of memory is counted.
    What it plans is the step of `mixln compare`: float32 weights and AdamW moments, and bfloat16 by autocast.
    """

    model: str = "7b"
    """A preset (tiny, olmoe-tiny, 9m, 20m, 35m, 60m, 71m, 130m, 250m, 350m, 1b, 7b, and those of recipes) or the path
    of a config.json."""
    placement: str = "pre"
    """The placement; `mixln placements` lists them. Quote one with brackets or a star."""
    vocabulary_size: Vocabulary | None = None
    """Tokens of the vocabulary. Left out, the model's."""
    sequence_length: Length = 256
    """Tokens per training sequence."""
    batch_size: Batch = 512
    """Sequences per optimizer step, over all devices."""
    micro_batch_size: Batch | None = None
    """Sequences per forward pass on one device; the rest is accumulated. Left out, the device's whole share of the batch."""
    steps: Steps | None = None
    """Optimizer steps. Left out, those of the Mix-LN paper's Table 7 (71m 10K, 130m 20K, 250m 40K, 1b 100K, 7b 13K); for other
    models, 20 tokens a parameter."""
    tokens: Tokens | None = None
    """Training tokens, instead of --steps; rounded up to whole steps."""
    trials: Count = 1
    """Trainings, for example placements × learning rates × seeds; they multiply the time."""
    devices: Processes = 1
    """Accelerators that train one model together."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several devices: ddp keeps everything on each of them; fsdp (FSDP2) cuts weights, gradients and moments among them."""
    activation_checkpointing: bool = False
    """Keep only what enters each layer, and compute the rest again in the backward pass."""
    precision: Precision = "bfloat16"
    """Of the forward and backward pass; weights and optimizer are float32 always."""
    device: DeviceName = "h100"
    """The accelerator, for its peak and its memory by the vendor's data sheet."""
    device_tflops: Annotated[float, Range(least=0, above=True, most=10**9)] | None = None
    """Peak of one accelerator, TFLOP/s of dense matrix products. Left out, that of --device at --precision."""
    memory_per_device: Annotated[float, Range(least=0, above=True, most=10**9)] | None = None
    """Memory of one accelerator, GB (10⁹ bytes). Left out, that of --device."""
    utilisation: Annotated[
        float, Range(least=0, above=True, most=1, rule="must lie in (0, 1] (a share of the peak)", interval=True)
    ] = 0.4
    """Share of the peak that the training reaches; 0.3 to 0.5 is usual for large models, small ones reach less."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "placement", canonical(self.placement))
        check_numbers(self)
        if self.steps is not None and self.tokens is not None:
            raise SettingsError("steps and tokens are two ways to say the same; give only one of them")
        if self.batch_size % self.devices:
            raise SettingsError(
                f"batch-size must be a multiple of devices {self.devices}, got {self.batch_size}; change one of them"
            )
        if self.share % self.micro_batch:
            raise SettingsError(
                f"micro-batch-size must divide the {self.share} sequences a step of each device "
                f"(batch-size {self.batch_size} / devices {self.devices}), got {self.micro_batch_size}"
            )
        if (tokens := self.micro_batch * self.sequence_length) > MOST_AT_ONCE:
            raise SettingsError(
                f"micro-batch-size × sequence-length must be at most {MOST_AT_ONCE:,} tokens in a forward pass of one device, "
                f"got {tokens:,}; lower one of them"
            )

    @property
    def share(self) -> int:
        """Sequences of one device in one optimizer step."""
        return self.batch_size // self.devices

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass on one device."""
        return self.share if self.micro_batch_size is None else self.micro_batch_size

    @property
    def accumulation(self) -> int:
        """Forward passes of one device in one optimizer step."""
        return self.share // self.micro_batch

    @property
    def sharded(self) -> bool:
        """Whether weights, gradients and moments are cut among devices."""
        return self.devices > 1 and self.parallel == "fsdp"

    @property
    def peak(self) -> float:
        """Peak of one device, TFLOP/s."""
        return DEVICES[self.device].tflops(self.precision) if self.device_tflops is None else self.device_tflops

    @property
    def memory(self) -> float:
        """Memory of one device, bytes."""
        return 1e9 * (DEVICES[self.device].memory if self.memory_per_device is None else self.memory_per_device)

    def total_steps(self, parameters: int) -> int:
        """Optimizer steps.

        :param parameters: of the model, with embeddings.
        """
        if self.steps is not None:
            return self.steps
        if self.tokens is None and self.model in TABLE_7:
            return TABLE_7[self.model]
        tokens = TOKENS_PER_PARAMETER * parameters if self.tokens is None else self.tokens
        return math.ceil(tokens / (self.batch_size * self.sequence_length))
