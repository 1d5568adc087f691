"""Settings of `mixln stress` and `mixln tune`. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from mixln.bounds import Count, Layers, Processes, Range, Seed, check_numbers
from mixln.compare.settings import CompareSettings, ExecutorSettings
from mixln.data.settings import TextSettings
from mixln.errors import SettingsError
from mixln.placement import canonical
from mixln.records import NEUTRAL
from mixln.training.settings import EngineSettings, RampSettings, TrainSettings

LEAST_STEPS = 20
"""Minimum steps of a learning-rate ramp. Over four decades, 20 steps raise the rate by 1.6× each; fewer are too coarse."""
LEAST_TRIALS = 6
"""Minimum proxy trials of a search: one more than the fixed ones that begin every search (`STARTS` and `PRE_STARTS` of
:mod:`mixln.search.proxy_trials`)."""


@dataclass(frozen=True, kw_only=True)
class SearchBaseSettings:
    """Settings that both searches share: the model, its data and its training."""

    model: str = "tiny"
    """A preset, or the path of a config.json, as for mixln compare."""
    cache: Annotated[Path, NEUTRAL] = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text."""
    jobs: Annotated[Processes | None, NEUTRAL] = None
    """Trials to run in parallel. By default one per GPU; without a GPU, one per core for small models."""
    text: Annotated[TextSettings, tyro.conf.arg(name="")] = field(default_factory=TextSettings)
    engine: Annotated[EngineSettings, NEUTRAL, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)
    training: TrainSettings

    @property
    def steps(self) -> int:
        """Optimizer steps of one trial: a ramp, or a full-length training."""
        return self.training.total_steps(self.text.sequence_length)

    def _comparison(self, **grid: Any) -> CompareSettings:
        """A comparison with these settings."""
        return CompareSettings(
            model=self.model,
            cache=self.cache,
            execution=ExecutorSettings(jobs=self.jobs),
            text=self.text,
            engine=self.engine,
            training=self.training,
            **grid,
        )


@dataclass(frozen=True, kw_only=True)
class StressSettings(SearchBaseSettings):
    """Find the highest learning rate at which each placement trains, by a learning-rate ramp.

    Each trial increases its learning rate until training fails: the loss overflows, or returns to the unigram baseline.
    Without arguments: four placements of a small 12-layer Llama, two seeds; takes a few minutes on two cores. If it is
    interrupted, run the same command again: finished trials are kept, the others resume.
    """

    placements: tuple[str, ...] = ("pre", "post", "mix(0.25)", "hybrid*")
    """Placements; `mixln placements` lists them. Quote those with brackets or a star. The others are compared with the first."""
    depths: tuple[Layers, ...] = ()
    """Numbers of layers; by default the model's."""
    inits: tuple[str, ...] = ()
    """Initialisations, for example normal megatron. By default, the one recommended for each placement."""
    seeds: tuple[Seed, ...] = (0, 1)
    """Seeds of the initial weights and the data order; every placement is trained with each."""
    highest: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 1.0
    """The learning rate at which the ramp ends."""
    out: Annotated[Path, NEUTRAL] = Path("runs/stress")
    """Folder of the trials, stress.json, report.html and figures."""
    training: Annotated[RampSettings, tyro.conf.arg(name="")] = field(default_factory=RampSettings)

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "placements", tuple(canonical(text) for text in self.placements))
        for name in ("placements", "seeds"):
            if not getattr(self, name):
                raise SettingsError(f"{name} must name at least one, got none")
        for name in ("placements", "depths", "inits", "seeds"):
            values = getattr(self, name)
            if doubled := [value for value in values if values.count(value) > 1]:
                raise SettingsError(f"{name} must not repeat, got {doubled[0]} twice")
        if self.steps < LEAST_STEPS:
            raise SettingsError(f"steps must be at least {LEAST_STEPS} for a ramp, got {self.steps}")
        self.comparison(next(iter(self.depths), None), next(iter(self.inits), None))

    @property
    def lowest(self) -> float:
        """The learning rate at which the ramp begins."""
        return self.highest * self.training.share(0, steps=2, warmup_steps=0)

    def comparison(self, depth: int | None, init: str | None) -> CompareSettings:
        """The trials of one depth and one initialisation; `None` for the model's depth and the recommended initialisations."""
        words = [*([f"{depth}-layers"] if depth else []), *([init] if init else [])]
        return self._comparison(
            layers=depth,
            init=init,
            placements=self.placements,
            learning_rates=(self.highest,),
            seeds=self.seeds,
            out=self.out / ("_".join(words) or "ramps"),
        )


@dataclass(frozen=True, kw_only=True)
class SearchSettings(SearchBaseSettings):
    """Tune the share of Post-LN layers and the learning rate for a model, a text and a budget, and compare the result with Pre-LN.

    A learning-rate ramp bounds the learning rate. A search over short trials (Optuna's TPE, with pruning of poor ones) finds
    candidates. Their learning rates, and that of Pre-LN, are tuned further at full length. The best candidate and Pre-LN are then
    trained with several seeds. Without arguments: a small 12-layer Llama, about twenty minutes on two cores. If it is interrupted,
    run the same command again to resume.
    """

    layers: Layers | None = None
    """Number of layers; by default the model's."""
    trials: Count = 16
    """Short trials of the search."""
    proxy: Annotated[
        float, Range(least=0, above=True, most=1, rule="must lie in (0, 1] (a share of the steps)", interval=True)
    ] = 0.33
    """Length of a short trial, as a share of the full length."""
    finalists: Count = 2
    """Candidates to train at full length, with a seed that is not one of --seeds; Pre-LN is added if it is not among them."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds of the final trials of the best candidate and of Pre-LN."""
    highest: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 1.0
    """The learning rate at which the ramp ends."""
    init: str = "normal"
    """Initialisation of all trials."""
    out: Annotated[Path, NEUTRAL] = Path("runs/tune")
    """Folder of the trials, tune.json, report.html and figures."""
    training: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.trials < LEAST_TRIALS:
            raise SettingsError(
                f"trials must be at least {LEAST_TRIALS}, got {self.trials}: the first {LEAST_TRIALS - 1} are fixed"
            )
        if not self.seeds:
            raise SettingsError("seeds must name at least one, got none")
        self.comparison()
        self.stress((0,), 4)

    @property
    def proxy_steps(self) -> int:
        """Optimizer steps of a short trial."""
        return max(4, round(self.proxy * self.steps))

    @property
    def ramp_steps(self) -> int:
        """Optimizer steps of a ramp: half of the full length, so that the model learns before the rate is too high."""
        return max(LEAST_STEPS, round(self.steps / 2))

    def comparison(self) -> CompareSettings:
        """The settings that the full-length trials share."""
        return self._comparison(layers=self.layers, init=self.init, placements=("pre",), seeds=self.seeds, out=self.out)

    def stress(self, counts: tuple[int, ...], layers: int) -> StressSettings:
        """The ramps of these numbers of Post-LN layers."""
        return StressSettings(
            model=self.model,
            cache=self.cache,
            jobs=self.jobs,
            text=self.text,
            engine=self.engine,
            training=RampSettings.of(self.training, steps=self.ramp_steps, decades=3.0),
            placements=tuple(placement_with(count, layers) for count in counts),
            depths=() if self.layers is None else (self.layers,),
            inits=(self.init,),
            seeds=(0,),
            highest=self.highest,
            out=self.out / "stress",
        )


def placement_with(post_layers: int, layers: int) -> str:
    """The placement whose first `post_layers` of `layers` are Post-LN and the others Pre-LN."""
    return {0: "pre", layers: "post"}.get(post_layers, f"mix({post_layers}/{layers})")
