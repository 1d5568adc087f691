"""The settings of a training; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mixln.errors import SettingsError
from mixln.training.schedule import factor, ramp

Parallel = Literal["ddp", "fsdp"]
"""What the processes that train one model hold of it: all of it, or a share (FSDP2)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW with linear warm-up and cosine decay."""

    batch_size: int = 8
    """Sequences per optimizer step."""
    micro_batch_size: int | None = None
    """Sequences per forward pass, to save memory: gradients are accumulated to --batch-size. Left out, all at once."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises linearly to its peak."""
    final_learning_rate: float = 0.1
    """Where the cosine ends, as a share of the peak."""
    beta1: float = 0.9
    """β₁ of AdamW."""
    beta2: float = 0.95
    """β₂ of AdamW."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only: norm gains and biases have none."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this global L2 norm; 0 switches clipping off."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward pass; weights and optimizer stay float32. `auto`: bfloat16 on a GPU that has it and on processors
    with AMX, float32 elsewhere."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "batch_size", "micro_batch_size")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise SettingsError(
                f"micro-batch-size must divide batch-size {self.batch_size}, got {self.micro_batch_size}"
            )
        for name in ("warmup", "final_learning_rate", "beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise SettingsError(f"{name.replace('_', '-')} must lie in [0, 1), got {value}")
        for name in ("weight_decay", "max_gradient_norm"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingsError(f"{name.replace('_', '-')} must be 0 or more, got {value}")

    def share(self, update: int, *, steps: int, warmup_steps: int) -> float:
        """Learning rate of one update as a share of the peak, see :func:`~mixln.training.schedule.factor`."""
        return factor(update, steps=steps, warmup_steps=warmup_steps, final=self.final_learning_rate)


@dataclass(frozen=True, kw_only=True)
class ScratchSettings(OptimizerSettings):
    """Training from initial values, the same for every trial."""

    evaluations: int = 4
    """Evaluations on all that is held out, evenly spread, the last one at the end."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights, gradients and moments. bfloat16 is for comparisons with code that does so, as the Mix-LN authors' does:
    small steps are lost, and norm gains hardly leave 1."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "evaluations")
        super().__post_init__()

    @property
    def state_bytes(self) -> int:
        """Of a checkpoint to go on from, for each parameter: the float32 weight and two moments of AdamW."""
        return 12


@dataclass(frozen=True, kw_only=True)
class VisionTrainSettings(ScratchSettings):
    """Training of image classifiers."""

    batch_size: int = 128
    """Images per optimizer step."""
    epochs: float = 7.0
    """Passes over the training images."""
    steps: int | None = None
    """Optimizer steps, instead of --epochs."""
    final_learning_rate: float = 0.0
    """Where the cosine ends, as a share of the peak."""
    beta2: float = 0.999
    """β₂ of AdamW."""
    weight_decay: float = 0.05
    """Decoupled weight decay, on matrices only: norm gains and biases have none."""
    average: float = 0.0
    """Decay of an exponential moving average of the weights, for example 0.9999, which is then evaluated and saved in place of
    the weights themselves; 0: none."""
    micro_batch_size: int | None = None
    """Images per forward pass, to save memory: gradients are accumulated to --batch-size. Left out, all at once."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "steps")
        if not 0 <= self.average < 1:
            raise SettingsError(f"average must lie in [0, 1), got {self.average}")
        if not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs must be above 0, got {self.epochs}")
        if self.steps is not None and self.epochs != type(self).epochs:
            raise SettingsError("steps and epochs are two ways to say the same; give only one of them")
        super().__post_init__()

    @property
    def state_bytes(self) -> int:
        """The same, with the average where there is one."""
        return super().state_bytes + 4 * bool(self.average)

    def total_steps(self, images: int) -> int:
        """Optimizer steps over so many images; of a last batch that is not full, none."""
        return self.steps or max(1, round(self.epochs * (images // self.batch_size)))


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ScratchSettings):
    """Pre-training, the same for every trial."""

    steps: int | None = None
    """Optimizer steps. Left out, what --tokens asks for, or 300."""
    tokens: int | None = None
    """Training tokens, instead of --steps; rounded up to whole steps."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.tokens is not None:
            raise SettingsError("steps and tokens are two ways to say the same; give only one of them")
        _check_least(self, 1, "steps", "tokens")
        super().__post_init__()

    def total_steps(self, sequence_length: int) -> int:
        """Optimizer steps for sequences of this many tokens."""
        if self.tokens is not None:
            return math.ceil(self.tokens / (self.batch_size * sequence_length))
        return 300 if self.steps is None else self.steps

    def warmup_steps(self, sequence_length: int) -> int:
        """Optimizer steps of warm-up, rounded to the nearest."""
        return round(self.warmup * self.total_steps(sequence_length))


@dataclass(frozen=True, kw_only=True)
class RampSettings(TrainSettings):
    """A training whose learning rate rises by the same factor every step, until it breaks."""

    decades: float = 4.0
    """From the first learning rate to the last, powers of ten."""
    warmup: Annotated[float, tyro.conf.Suppress] = 0.0
    final_learning_rate: Annotated[float, tyro.conf.Suppress] = 0.0
    evaluations: Annotated[int, tyro.conf.Suppress] = 1

    def __post_init__(self) -> None:
        if not 0 < self.decades <= 12:
            raise SettingsError(f"decades must lie in (0, 12] (powers of ten), got {self.decades}")
        super().__post_init__()

    def share(self, update: int, *, steps: int, warmup_steps: int) -> float:
        """The same share for all learning rates, see :func:`~mixln.training.schedule.ramp`."""
        return ramp(update, steps=steps, decades=self.decades)

    def warmup_steps(self, sequence_length: int) -> int:
        """All: nothing but a warm-up."""
        return self.total_steps(sequence_length)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a pre-training runs; none of it changes what is computed, beyond rounding."""

    activation_checkpointing: bool = False
    """Keep only what enters each layer and compute the rest again for the backward pass: less memory, about a third more time."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints of a trial, seconds."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the layers with torch.compile: faster steps and less memory, after some seconds of compiling. `auto`: where one process
    has 800 steps or more to do in all its trials (2,000 on a GPU), there is a C++ compiler (triton on a GPU), and without FSDP2."""
    data_workers: int = 0
    """Processes beside each that trains, which read a stream and share out its tokenizing."""

    def __post_init__(self) -> None:
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise SettingsError(f"checkpoint-seconds must be 0 or more, got {self.checkpoint_seconds}")
        _check_least(self, 0, "data_workers")

    def check(self, parallel: Parallel) -> None:
        """:raises SettingsError: if models that are held so cannot run so."""
        if self.compile == "on" and parallel == "fsdp":
            raise SettingsError("compile on goes with --parallel ddp only; leave it to --compile auto")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(OptimizerSettings):
    """Training of a model that exists, on examples."""

    epochs: float = 1.0
    """Passes over the examples."""
    steps: int | None = None
    """Optimizer steps, instead of --epochs."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    batch_size: int = 16
    """Examples per optimizer step."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises linearly to its peak."""
    beta2: float = 0.999
    """β₂ of AdamW."""
    weight_decay: float = 0.0
    """Decoupled weight decay, on matrices only."""
    evaluations: int = 4
    """Evaluations on the held-out examples, evenly spread, the last one at the end; there is one at the start too."""
    lora: int | None = None
    """Rank of LoRA adapters on the matrices of attention and feed-forward, merged into the model at the end.
    Left out, all weights are trained."""
    lora_alpha: int | None = None
    """The adapters are scaled by α/rank. Left out, α is twice the rank."""

    def __post_init__(self) -> None:
        _check_least(self, 1, "steps", "evaluations", "lora", "lora_alpha")
        if self.lora is None and self.lora_alpha is not None:
            raise SettingsError("lora-alpha needs --lora; name a rank, for example 32")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SettingsError(f"{name.replace('_', '-')} must be above 0, got {value}")
        super().__post_init__()

    def total_steps(self, examples: int) -> int:
        """Optimizer steps over so many examples; of a last batch that is not full, none."""
        return self.steps or max(1, int(self.epochs * examples) // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class RlhfSettings(TuneSettings):
    """Reinforcement learning from a reward model."""

    algorithm: Literal["rloo", "grpo"] = "rloo"
    """Leave-one-out REINFORCE (arXiv:2402.14740), or group-relative policy optimization (arXiv:2402.03300)."""
    batch_size: int = 32
    """Completions per optimizer step."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    generations: int = 4
    """Completions sampled of each prompt."""
    new_tokens: int = 32
    """Most tokens of a completion."""
    temperature: float = 1.0
    """Of the sampling."""
    beta: float = 0.05
    """Weight of the KL divergence from the model that the training starts from."""

    def __post_init__(self) -> None:
        _check_least(self, 2, "generations")
        _check_least(self, 1, "new_tokens")
        for name in ("batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value % self.generations:
                raise SettingsError(
                    f"{name.replace('_', '-')} must be a multiple of generations {self.generations}, got {value}"
                )
        if not 0 < self.temperature < math.inf:
            raise SettingsError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= self.beta < math.inf:
            raise SettingsError(f"beta must be 0 or more, got {self.beta}")
        super().__post_init__()


def _check_least(settings: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise SettingsError(f"{name.replace('_', '-')} must be at least {least}, got {value}")
