"""Settings of a training. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import tyro

from mixln.bounds import (
    Batch,
    Count,
    Epochs,
    NotNegative,
    Positive,
    Range,
    Rank,
    Seconds,
    Share,
    Steps,
    Tokens,
    check_numbers,
)
from mixln.errors import SettingsError
from mixln.records import Partial
from mixln.training.schedule import factor, ramp

Parallel = Literal["ddp", "fsdp"]
"""Whether each process holds the complete model (DDP) or a shard of it (FSDP2)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Partial):
    """AdamW with linear warm-up and cosine decay."""

    batch_size: Batch = 8
    """Sequences per optimizer step."""
    micro_batch_size: Batch | None = None
    """Sequences per forward pass; smaller values save memory. Gradients are accumulated to --batch-size, which is the default."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises linearly to its peak."""
    final_learning_rate: Share = 0.1
    """Learning rate at the end of the cosine, as a share of the peak."""
    beta1: Share = 0.9
    """β₁ of AdamW."""
    beta2: Share = 0.95
    """β₂ of AdamW."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay, applied to matrices only, not to norm gains and biases."""
    max_gradient_norm: NotNegative = 1.0
    """Global L2 norm to which gradients are clipped; 0 for no clipping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of the forward and backward pass; weights and optimizer stay float32. `auto`: bfloat16 on GPUs that support it and on CPUs
    with AMX, float32 elsewhere."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise SettingsError(
                f"micro-batch-size must divide batch-size {self.batch_size}, got {self.micro_batch_size}"
            )

    def share(self, update: int, *, steps: int, warmup_steps: int) -> float:
        """Learning rate of an update as a share of the peak, see :func:`~mixln.training.schedule.factor`."""
        return factor(update, steps=steps, warmup_steps=warmup_steps, final=self.final_learning_rate)


@dataclass(frozen=True, kw_only=True)
class ScratchSettings(OptimizerSettings):
    """Training from initial weights, the same for every trial."""

    evaluations: Count = 4
    """Number of evaluations on all held-out data, at even intervals; the last one is at the end."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """dtype of weights, gradients and Adam's moments. bfloat16 is only for comparison with code that uses it, such as that of the Mix-LN
    authors: small updates are rounded away, and norm gains hardly move from 1."""

    @property
    def state_bytes(self) -> int:
        """Bytes per parameter of a checkpoint: the float32 weight and the two moments of AdamW."""
        return 12


@dataclass(frozen=True, kw_only=True)
class VisionTrainSettings(ScratchSettings):
    """Training of image classifiers."""

    batch_size: Batch = 128
    """Images per optimizer step."""
    epochs: Epochs = 7.0
    """Passes over the training images."""
    steps: Steps | None = None
    """Optimizer steps, instead of --epochs."""
    final_learning_rate: Share = 0.0
    """Learning rate at the end of the cosine, as a share of the peak."""
    beta2: Share = 0.999
    """β₂ of AdamW."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay, applied to matrices only, not to norm gains and biases."""
    average: Share = 0.0
    """Decay of an exponential moving average (EMA) of the weights, for example 0.9999; the EMA is evaluated and saved in place of
    the weights. 0 for no EMA."""
    micro_batch_size: Batch | None = None
    """Images per forward pass; smaller values save memory. Gradients are accumulated to --batch-size, which is the default."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.steps is not None and self.epochs != type(self).epochs:
            raise SettingsError("steps and epochs both set the length of the training; give only one of them")
        super().__post_init__()

    @property
    def state_bytes(self) -> int:
        """As above, plus the float32 EMA if there is one."""
        return super().state_bytes + 4 * bool(self.average)

    def total_steps(self, images: int) -> int:
        """Optimizer steps for this many images; an incomplete last batch is dropped."""
        return self.steps or max(1, round(self.epochs * (images // self.batch_size)))


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ScratchSettings):
    """Pre-training, the same for every trial."""

    steps: Steps | None = None
    """Optimizer steps. By default computed from --tokens, or 300."""
    tokens: Tokens | None = None
    """Training tokens, instead of --steps; rounded up to whole steps."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.tokens is not None:
            raise SettingsError("steps and tokens both set the length of the training; give only one of them")
        super().__post_init__()

    def total_steps(self, sequence_length: int) -> int:
        """Optimizer steps for sequences of this many tokens."""
        if self.tokens is not None:
            return math.ceil(self.tokens / (self.batch_size * sequence_length))
        return 300 if self.steps is None else self.steps

    def warmup_steps(self, sequence_length: int) -> int:
        """Optimizer steps of warm-up, rounded to the nearest integer."""
        return round(self.warmup * self.total_steps(sequence_length))


@dataclass(frozen=True, kw_only=True)
class RampSettings(TrainSettings):
    """A training whose learning rate rises by the same factor at every step, until it becomes unstable."""

    decades: Annotated[
        float, Range(least=0, above=True, most=12, rule="must lie in (0, 12] (powers of ten)", interval=True)
    ] = 4.0
    """Powers of ten between the first and the last learning rate."""
    warmup: Annotated[Share, tyro.conf.Suppress] = 0.0
    final_learning_rate: Annotated[Share, tyro.conf.Suppress] = 0.0
    evaluations: Annotated[Count, tyro.conf.Suppress] = 1

    def __post_init__(self) -> None:
        check_numbers(self)
        super().__post_init__()

    @classmethod
    def of(cls, training: TrainSettings, *, steps: int, decades: float) -> RampSettings:
        """A ramp with the batches, optimizer and precision of a training."""
        common = [item.name for item in fields(OptimizerSettings) if item.name not in ("warmup", "final_learning_rate")]
        return cls(
            **{name: getattr(training, name) for name in common}, weights=training.weights, steps=steps, decades=decades
        )

    def share(self, update: int, *, steps: int, warmup_steps: int) -> float:
        """Learning rate of an update as a share of the last one, see :func:`~mixln.training.schedule.ramp`."""
        return ramp(update, steps=steps, decades=self.decades)

    def warmup_steps(self, sequence_length: int) -> int:
        """All steps: a ramp is warm-up only."""
        return self.total_steps(sequence_length)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Execution of a pre-training. None of these settings changes the results beyond rounding."""

    activation_checkpointing: bool = False
    """Keep only the inputs of the layers and recompute the rest in the backward pass: less memory, about a third more time."""
    checkpoint_seconds: Seconds = 60.0
    """Time between two checkpoints of a trial, seconds."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the layers with torch.compile: faster steps and less memory, after some seconds of compilation. `auto`: if a process has
    at least 800 steps in all its trials (2,000 on a GPU), a C++ compiler is available (triton on a GPU), and FSDP2 is not used."""
    data_workers: Annotated[int, Range(least=0, most=1024)] = 0
    """Additional processes for each training process that read and tokenize a stream, or load and augment images."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def check(self, parallel: Parallel) -> None:
        """:raises SettingsError: if these settings cannot be combined with `parallel`."""
        if self.compile == "on" and parallel == "fsdp":
            raise SettingsError("compile on requires --parallel ddp; use --compile auto")


@dataclass(frozen=True, kw_only=True)
class PostTrainingSettings(OptimizerSettings):
    """Training of an existing model on examples."""

    epochs: Epochs = 1.0
    """Passes over the examples."""
    steps: Steps | None = None
    """Optimizer steps, instead of --epochs."""
    learning_rate: Positive = 1e-4
    """Peak learning rate."""
    batch_size: Batch = 16
    """Examples per optimizer step."""
    warmup: Share = 0.03
    """Share of the steps over which the learning rate rises linearly to its peak."""
    beta2: Share = 0.999
    """β₂ of AdamW."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay, applied to matrices only."""
    evaluations: Count = 4
    """Number of evaluations on the held-out examples, at even intervals, the last one at the end; one more precedes the training."""
    lora: Rank | None = None
    """Rank of LoRA adapters on the matrices of attention and feed-forward, merged into the model at the end.
    By default, all weights are trained."""
    lora_alpha: Rank | None = None
    """α of LoRA: adapters are scaled by α/rank. Twice the rank by default."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.lora is None and self.lora_alpha is not None:
            raise SettingsError("lora-alpha needs --lora; name a rank, for example 32")
        super().__post_init__()

    def total_steps(self, examples: int) -> int:
        """Optimizer steps for this many examples; an incomplete last batch is dropped."""
        return self.steps or max(1, int(self.epochs * examples) // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class RlhfSettings(PostTrainingSettings):
    """Reinforcement learning from a reward model."""

    algorithm: Literal["rloo", "grpo"] = "rloo"
    """Leave-one-out REINFORCE (arXiv:2402.14740), or group-relative policy optimization (arXiv:2402.03300)."""
    batch_size: Batch = 32
    """Completions per optimizer step."""
    learning_rate: Positive = 1e-5
    """Peak learning rate."""
    generations: Annotated[int, Range(least=2, most=10**6)] = 4
    """Completions sampled for each prompt."""
    new_tokens: Annotated[int, Range(least=1, most=10**7)] = 32
    """Maximum number of tokens in a completion."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    beta: NotNegative = 0.05
    """Weight of the KL divergence from the initial model."""

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value % self.generations:
                raise SettingsError(
                    f"{name.replace('_', '-')} must be a multiple of generations {self.generations}, got {value}"
                )
        super().__post_init__()
