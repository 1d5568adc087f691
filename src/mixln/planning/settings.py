"""Settings of a plan, and the specifications of accelerators. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mixln.bounds import Batch, Count, Length, Processes, Range, Steps, Tokens, Vocabulary, check_numbers
from mixln.errors import SettingsError
from mixln.placement import canonical

Precision = Literal["float32", "bfloat16"]

TABLE_7: dict[str, int] = {"71m": 10_000, "130m": 20_000, "250m": 40_000, "1b": 100_000, "7b": 13_000}
"""Preset → optimizer steps in the Mix-LN paper (arXiv:2412.13795, Table 7; for 7b, the steps that its training curve shows)."""

MOST_AT_ONCE = 2**20
"""Maximum number of tokens in a forward pass on one device. No device fits more, and planning this many takes about a minute."""
TOKENS_PER_PARAMETER = 20
"""Default training length of the other models (Hoffmann et al., arXiv:2203.15556)."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator, with values from its vendor's data sheet.

    :param bfloat16: peak of dense matrix products, TFLOP/s. Data sheets often list twice this, with sparsity.
    :param float32: peak in float32, TFLOP/s, without TF32, which PyTorch does not use by default.
    :param memory: GB (10⁹ bytes).
    """

    title: str
    bfloat16: float
    float32: float
    memory: float

    def tflops(self, precision: Precision) -> float:
        """Peak in this precision, TFLOP/s."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


DEVICES: dict[str, Device] = {
    "h100": Device(title="NVIDIA H100 SXM", bfloat16=989.0, float32=67.0, memory=80.0),
    "h200": Device(title="NVIDIA H200 SXM", bfloat16=989.0, float32=67.0, memory=141.0),
    "a100": Device(title="NVIDIA A100 80GB", bfloat16=312.0, float32=19.5, memory=80.0),
    "a100-40gb": Device(title="NVIDIA A100 40GB", bfloat16=312.0, float32=19.5, memory=40.0),
    "l40s": Device(title="NVIDIA L40S", bfloat16=362.0, float32=91.6, memory=48.0),
    "rtx4090": Device(title="NVIDIA GeForce RTX 4090", bfloat16=165.2, float32=82.6, memory=24.0),
}
"""From NVIDIA's data sheets for the H100, H200, A100 and L40S, and its Ada architecture white paper for the RTX 4090."""

UTILISATION = 0.3
"""Share of a GPU's peak that the time estimates of recipes assume."""

DeviceName = Literal["h100", "h200", "a100", "a100-40gb", "l40s", "rtx4090"]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Estimate what a pre-training run needs: parameters, memory per device, tokens, FLOPs and time.

    Nothing is allocated: one training step runs on tensors without data, and its peak memory is tracked.
    The step is that of `mixln compare`: float32 weights and AdamW moments, with bfloat16 by autocast.
    """

    model: str = "7b"
    """A preset (tiny, olmoe-tiny, 9m, 20m, 35m, 60m, 71m, 130m, 250m, 350m, 1b, 7b, and those of recipes) or the path
    of a config.json."""
    placement: str = "pre"
    """The placement; `mixln placements` lists them all. Quote it if it contains parentheses or a star."""
    vocabulary_size: Vocabulary | None = None
    """Vocabulary size in tokens; the model's by default."""
    sequence_length: Length = 256
    """Tokens per training sequence."""
    batch_size: Batch = 512
    """Sequences per optimizer step, over all devices."""
    micro_batch_size: Batch | None = None
    """Sequences per forward pass on one device; gradients are accumulated over the rest. By default, the device's whole share of
    the batch."""
    steps: Steps | None = None
    """Optimizer steps. By default, those of the Mix-LN paper's Table 7 (71m 10K, 130m 20K, 250m 40K, 1b 100K, 7b 13K); for other
    models, 20 tokens per parameter."""
    tokens: Tokens | None = None
    """Training tokens, instead of --steps; rounded up to whole steps."""
    trials: Count = 1
    """Number of runs, for example placements × learning rates × seeds; multiplies the time."""
    devices: Processes = 1
    """Number of accelerators that train one model together."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several devices: ddp replicates weights, gradients and moments on all of them; fsdp (FSDP2) shards them."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer, and recompute the other activations in the backward pass."""
    precision: Precision = "bfloat16"
    """Precision of the forward and backward pass; weights and optimizer state are always float32."""
    device: DeviceName = "h100"
    """The accelerator, whose peak and memory are taken from its data sheet."""
    device_tflops: Annotated[float, Range(least=0, above=True, most=10**9)] | None = None
    """Peak of one accelerator, TFLOP/s of dense matrix products; by default that of --device at --precision."""
    memory_per_device: Annotated[float, Range(least=0, above=True, most=10**9)] | None = None
    """Memory of one accelerator, GB (10⁹ bytes); by default that of --device."""
    utilisation: Annotated[
        float, Range(least=0, above=True, most=1, rule="must lie in (0, 1] (a share of the peak)", interval=True)
    ] = 0.4
    """Share of the peak that training reaches: typically 0.3 to 0.5 for large models, less for small ones."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "placement", canonical(self.placement))
        check_numbers(self)
        if self.steps is not None and self.tokens is not None:
            raise SettingsError(
                f"steps and tokens both set the training length, got steps {self.steps} and tokens {self.tokens}; give only one"
            )
        if self.batch_size % self.devices:
            raise SettingsError(
                f"batch-size must be a multiple of devices {self.devices}, got {self.batch_size}; change one of them"
            )
        if self.share % self.micro_batch:
            raise SettingsError(
                f"micro-batch-size must divide the {self.share} sequences per step of each device "
                f"(batch-size {self.batch_size} / devices {self.devices}), got {self.micro_batch_size}"
            )
        if (tokens := self.micro_batch * self.sequence_length) > MOST_AT_ONCE:
            raise SettingsError(
                f"micro-batch-size × sequence-length must be at most {MOST_AT_ONCE:,} tokens per forward pass of one device, "
                f"got {tokens:,}; lower one of them"
            )

    @property
    def share(self) -> int:
        """Sequences per device and optimizer step."""
        return self.batch_size // self.devices

    @property
    def micro_batch(self) -> int:
        """Sequences per forward pass on one device."""
        return self.share if self.micro_batch_size is None else self.micro_batch_size

    @property
    def accumulation(self) -> int:
        """Forward passes per device and optimizer step."""
        return self.share // self.micro_batch

    @property
    def sharded(self) -> bool:
        """Whether weights, gradients and moments are sharded over the devices."""
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
        """Number of optimizer steps.

        :param parameters: number of parameters of the model, including embeddings.
        """
        if self.steps is not None:
            return self.steps
        if self.tokens is None and self.model in TABLE_7:
            return TABLE_7[self.model]
        tokens = TOKENS_PER_PARAMETER * parameters if self.tokens is None else self.tokens
        return math.ceil(tokens / (self.batch_size * self.sequence_length))
