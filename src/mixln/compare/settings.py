"""Settings of a comparison. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
from abc import ABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import tyro

from mixln.bounds import (
    MOST_STEPS,
    Layers,
    Pixels,
    Positive,
    Processes,
    Range,
    Seed,
    Share,
    check_numbers,
)
from mixln.compare.chain_settings import ChainSettings
from mixln.data.settings import AugmentSettings, ImageSettings, TextSettings
from mixln.errors import SettingsError
from mixln.placement import canonical
from mixln.records import NEUTRAL, Partial, decisive
from mixln.runs.trials import Trial
from mixln.training.settings import EngineSettings, Parallel, ScratchSettings, TrainSettings, VisionTrainSettings

GRID = ("placements", "learning_rates", "seeds")
"""Axes of a comparison."""


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """Where trials run."""

    jobs: Processes | None = None
    """Trials to run in parallel. By default one per GPU; without a GPU, one per core for small models."""
    executor: Literal["local", "ray"] = "local"
    """Run trials in processes on this machine (local), or as tasks on a Ray cluster whose machines share --out and --cache (ray)."""
    ray_address: str | None = None
    """Address of the cluster, for example auto or ray://head:10001. By default this machine's cluster, or else a new local one."""
    cpus_per_trial: Processes = 1
    """CPU cores per trial on a Ray cluster."""
    gpus_per_trial: Annotated[int, Range(least=0, most=1, rule="must be 0 or 1", interval=True)] = 0
    """GPUs per trial on a Ray cluster: 0 or 1."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.executor != "ray" and (self.ray_address, self.cpus_per_trial, self.gpus_per_trial) != (None, 1, 0):
            raise SettingsError(
                "ray-address, cpus-per-trial and gpus-per-trial apply only to --executor ray; add it, or omit them"
            )


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings(Partial):
    """Settings shared by all trials of an experiment, and its folder."""

    init: str | None = None
    """Initialisation, for example normal, megatron or scaled-embed+normal; `mixln placements` lists them.
    By default, the one recommended for each placement."""
    out: Annotated[Path, NEUTRAL] = Path("runs/default")
    """Folder of the experiment: trials, figures, report.html. If it holds an experiment, options that are not given keep its values."""
    extend: Annotated[bool, NEUTRAL] = False
    """Add placements, learning rates or seeds to the experiment in --out, and keep its finished trials."""
    cache: Annotated[Path, NEUTRAL] = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text and images, shared by all experiments."""
    engine: Annotated[EngineSettings, NEUTRAL, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)


@dataclass(frozen=True, kw_only=True)
class LanguageSettings:
    """A language model, its text and its training."""

    model: str = "tiny"
    """A preset (tiny, olmoe-tiny, qwen2-tiny, smollm3-tiny, gemma2-tiny, 9m, 20m, 35m, 60m, 71m, 130m, 250m, 350m, 1b, 7b, and those of
    recipes), or the path of a config.json of a family with a language model; mixln families lists them."""
    layers: Layers | None = None
    """Number of layers; by default the model's."""
    text: Annotated[TextSettings, tyro.conf.arg(name="")] = field(default_factory=TextSettings)
    training: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(default_factory=TrainSettings)


@dataclass(frozen=True, kw_only=True)
class GridSettings(ExperimentSettings, ABC):
    """Placements × learning rates × seeds, and where the trials run."""

    DEFAULTS: ClassVar[dict[str, tuple[Any, ...]]]
    """Default values of each axis."""
    task: Annotated[str, NEUTRAL]
    model: str
    training: ScratchSettings

    placements: Annotated[tuple[str, ...], NEUTRAL] = ()
    """Placements to compare; `mixln placements` lists them. Quote those with brackets or a star.
    Default: those of the experiment in --out, or pre post "mix(0.25)" "hybrid*"."""
    learning_rates: Annotated[tuple[Positive, ...], NEUTRAL] = ()
    """Peak learning rates; every placement is trained at each.
    Default: those of the experiment in --out, or 3e-3 (1e-3 for images)."""
    seeds: Annotated[tuple[Seed, ...], NEUTRAL] = ()
    """Seeds of the initial weights and the data order; every placement is trained with each.
    Default: those of the experiment in --out, or 0 1."""
    baseline: Annotated[str | None, NEUTRAL] = None
    """Placement that the others are compared with; by default the first."""
    diagnose: Annotated[bool, NEUTRAL] = False
    """Also measure the contribution of each layer, in the best trial of each placement. Takes half a minute for a small model."""
    after: Annotated[ChainSettings, NEUTRAL, tyro.conf.Suppress] = field(default_factory=ChainSettings)
    execution: Annotated[ExecutorSettings, NEUTRAL, tyro.conf.arg(name="")] = field(default_factory=ExecutorSettings)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.task != type(self).task:
            raise SettingsError(f"task of {type(self).__name__} is {type(self).task}, got {self.task}")
        object.__setattr__(self, "placements", tuple(canonical(text) for text in self.placements))
        if self.baseline is not None:
            object.__setattr__(self, "baseline", canonical(self.baseline))
        for name, default in self.DEFAULTS.items():
            values = getattr(self, name)
            if not values and not self.extend:
                object.__setattr__(self, name, default)
            if doubled := [value for value in values if values.count(value) > 1]:
                raise SettingsError(f"{name.replace('_', '-')} must not repeat, got {doubled[0]} twice")
        if self.baseline is not None and not self.extend and self.baseline not in self.placements:
            raise SettingsError(
                f"baseline must be one of the placements {', '.join(self.placements)}, got {self.baseline}"
            )

    def with_grid(self, grid: dict[str, list[Any]]) -> Self:
        """The same settings on this grid; an empty axis gets its default."""
        axes = {name: tuple(values) or self.DEFAULTS[name] for name, values in grid.items()}
        return dataclasses.replace(self, extend=False, **axes)

    @property
    def reference(self) -> str:
        """The baseline placement."""
        return self.placements[0] if self.baseline is None else self.baseline

    def trials(self, inits: dict[str, str]) -> list[Trial]:
        """Every trial, by seed, then learning rate, then placement, so that partial results cover all placements.

        :param inits: placement → name of its initialisation.
        """
        return [
            Trial(placement=placement, init=inits[placement], learning_rate=rate, seed=seed)
            for seed in self.seeds
            for rate in self.learning_rates
            for placement in self.placements
        ]

    def shared(self) -> dict[str, Any]:
        """The settings that affect the results of every trial, as JSON."""
        return decisive(self)

    def grid(self) -> dict[str, list[Any]]:
        """The three axes of the comparison."""
        return {name: list(getattr(self, name)) for name in GRID}


@dataclass(frozen=True, kw_only=True)
class CompareSettings(LanguageSettings, GridSettings):
    """Train placements × learning rates × seeds on equal terms, and report the best with confidence intervals.

    Without arguments: four placements of a small 12-layer Llama, two seeds, on the text included in mixln; takes a few
    minutes on two cores. If it is interrupted, run the same command again: finished trials are kept, the others resume.
    """

    DEFAULTS: ClassVar[dict[str, tuple[Any, ...]]] = {
        "placements": ("pre", "post", "mix(0.25)", "hybrid*"),
        "learning_rates": (3e-3,),
        "seeds": (0, 1),
    }
    task: Annotated[str, NEUTRAL] = "language"
    """Task: language (predict the next token), masked-lm (predict masked tokens) or vision (classify images). The options depend on the
    task; see for example mixln compare --task vision --help."""
    training: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(default_factory=TrainSettings)
    after: Annotated[ChainSettings, NEUTRAL, tyro.conf.arg(name="")] = field(default_factory=ChainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > MOST_STEPS:
            raise SettingsError(
                f"tokens must make at most {MOST_STEPS:,} steps, got {self.steps:,}; lower --tokens, or raise --batch-size"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of one trial."""
        return self.training.total_steps(self.text.sequence_length)

    @property
    def tokens(self) -> int:
        """Training tokens of one trial."""
        return self.steps * self.training.batch_size * self.text.sequence_length

    def shared(self) -> dict[str, Any]:
        """As in the base class, with `tokens` converted to optimizer steps: both ways of giving the length are one request."""
        shared = super().shared()
        return {**shared, "training": {**shared["training"], "steps": self.steps, "tokens": None}}


@dataclass(frozen=True, kw_only=True)
class VisionCompareSettings(GridSettings):
    """Train image classifiers, placements × learning rates × seeds, on equal terms, and report the best with confidence intervals.

    Without arguments: four placements of a small 12-layer vision transformer, two seeds, on the 60,000 training images of
    Fashion-MNIST. If it is interrupted, run the same command again: finished trials are kept, the others resume.
    """

    DEFAULTS: ClassVar[dict[str, tuple[Any, ...]]] = {**CompareSettings.DEFAULTS, "learning_rates": (1e-3,)}
    task: Annotated[str, NEUTRAL] = "vision"
    """Task: language, masked-lm or vision. The options depend on the task; see mixln compare --help."""
    out: Annotated[Path, NEUTRAL] = Path("runs/vision")
    """Folder of the experiment: trials, figures, report.html."""
    model: str = "vit-micro"
    """A preset (vit-micro for small images; vit-tiny, vit-small, vit-base for 224 × 224 pixels), or the path of a ViT's config.json."""
    image_size: Pixels | None = None
    """Height and width of the model's input, pixels; images of other sizes are resized. By default the model's."""
    patch_size: Pixels | None = None
    """Height and width of a patch, pixels; by default the model's."""
    num_channels: Literal[1, 3] | None = None
    """1 for grey images, 3 for colour; other images are converted. By default the model's."""
    stochastic_depth: Share = 0.0
    """Probability, during training, of dropping a branch of the last layer for a sample; it increases linearly over the layers, from 0
    in the first (arXiv:1603.09382)."""
    images: Annotated[ImageSettings, tyro.conf.arg(name="")] = field(default_factory=ImageSettings)
    augment: Annotated[AugmentSettings, tyro.conf.arg(name="")] = field(default_factory=AugmentSettings)
    training: Annotated[VisionTrainSettings, tyro.conf.arg(name="")] = field(default_factory=VisionTrainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.after.chain:
            raise SettingsError(f"chain is for --task language only; omit {', '.join(self.after.chain)}")

    @property
    def sizes(self) -> dict[str, int | None]:
        """Sizes of the model's images; `None` keeps the model's own."""
        return {"image_size": self.image_size, "patch_size": self.patch_size, "num_channels": self.num_channels}


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(LanguageSettings, ExperimentSettings):
    """Train one model on all devices: a single trial of `mixln compare`, with the same settings and the same kind of folder.

    For several devices, start it with torchrun or accelerate: torchrun --nproc-per-node 8 -m mixln pretrain …
    """

    out: Path = Path("runs/pretrain")
    """Folder of the experiment: trial, figures, report.html."""
    placement: str = "pre"
    """Placement of the norms; `mixln placements` lists them."""
    learning_rate: Positive = 3e-3
    """Peak learning rate."""
    seed: Seed = 0
    """Seed of the initial weights and the data order."""
    parallel: Parallel = "ddp"
    """With several processes: each holds the complete model (ddp), or a shard of the weights, gradients and optimizer state (fsdp)."""

    def __post_init__(self) -> None:
        check_numbers(self)
        self.comparison()
        self.engine.check(self.parallel)

    def comparison(self) -> CompareSettings:
        """The comparison with only this trial."""
        return CompareSettings(
            model=self.model,
            layers=self.layers,
            text=self.text,
            training=self.training,
            init=self.init,
            out=self.out,
            extend=self.extend,
            cache=self.cache,
            engine=self.engine,
            placements=(self.placement,),
            learning_rates=(self.learning_rate,),
            seeds=(self.seed,),
        )
