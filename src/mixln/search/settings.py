"""The settings of searches; nothing here needs torch."""

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
"""Of a ramp: with fewer, each step would be a leap."""
LEAST_TRIALS = 6
"""Short trainings of a search: one more than those that begin every search (`STARTS` and `PRE_STARTS` of
:mod:`mixln.search.proxy_trials`)."""


@dataclass(frozen=True, kw_only=True)
class SearchBaseSettings:
    """What is trained, and where, whatever is searched for."""

    model: str = "tiny"
    """A preset, or the path of a config.json, as for mixln compare."""
    cache: Annotated[Path, NEUTRAL] = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text."""
    jobs: Annotated[Processes | None, NEUTRAL] = None
    """Trainings side by side. By default one per GPU; without a GPU, one per core for small models."""
    text: Annotated[TextSettings, tyro.conf.arg(name="")] = field(default_factory=TextSettings)
    engine: Annotated[EngineSettings, NEUTRAL, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)
    training: TrainSettings

    @property
    def steps(self) -> int:
        """Optimizer steps of one training: of a ramp, or in full."""
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
    """Raise the learning rate from small to breaking, and say up to which one each placement trains.

    Each training takes ever larger steps until its loss breaks: it overflows, or falls back to what word frequencies alone give.
    Without arguments: four placements of a small 12-layer Llama, two seeds, in a few minutes on two cores. Run the same command
    again to finish what was cut off; nothing is repeated.
    """

    placements: tuple[str, ...] = ("pre", "post", "mix(0.25)", "hybrid*")
    """Placements; `mixln placements` lists them. Quote those with brackets or a star. The first is what the others are compared with."""
    depths: tuple[Layers, ...] = ()
    """Numbers of layers. Left out, the model's own."""
    inits: tuple[str, ...] = ()
    """Initialisations, for example normal megatron. Left out, each placement has its recommended one."""
    seeds: tuple[Seed, ...] = (0, 1)
    """Each seed decides initial weights and data order, the same for all placements."""
    highest: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 1.0
    """The learning rate at which the ramp ends."""
    out: Annotated[Path, NEUTRAL] = Path("runs/stress")
    """Folder of the trainings and of stress.json, report.html and figures."""
    training: Annotated[RampSettings, tyro.conf.arg(name="")] = field(default_factory=RampSettings)

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "placements", tuple(canonical(text) for text in self.placements))
        for name in ("placements", "seeds"):
            if not getattr(self, name):
                raise SettingsError(f"{name} must name at least one")
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
        """The trainings of one depth and one init; `None` for the model's and the placements' own."""
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
    """Choose the share of Post-LN layers and the learning rate for a model, a text and a budget, with the evidence.

    A learning-rate ramp says how far the learning rate may go, a search over short trainings (Optuna's TPE, those that fall behind
    are ended early) finds candidates, whose learning rates are tuned further in full trainings, as is that of Pre-LN; the best of
    them and Pre-LN are trained over several seeds. Without arguments: for a small 12-layer Llama, in about twenty minutes on two
    cores. Run the same command again to finish what was cut off.
    """

    layers: Layers | None = None
    """Number of layers in place of the model's."""
    trials: Count = 16
    """Short trainings of the search."""
    proxy: Annotated[
        float, Range(least=0, above=True, most=1, rule="must lie in (0, 1] (a share of the steps)", interval=True)
    ] = 0.33
    """Length of a short training, as a share of the full one."""
    finalists: Count = 2
    """Candidates that are trained in full, with another seed than those below; Pre-LN is one more, if it is not among them."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Of the full trainings of the best candidate and of Pre-LN."""
    highest: Annotated[float, Range(least=0, above=True, most=10**6, rule="must be above 0 and finite")] = 1.0
    """The learning rate at which the ramp ends."""
    init: str = "normal"
    """Initialisation of all."""
    out: Annotated[Path, NEUTRAL] = Path("runs/tune")
    """Folder of the trainings, of the search's storage and of tune.json, report.html and figures."""
    training: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.trials < LEAST_TRIALS:
            raise SettingsError(
                f"trials must be at least {LEAST_TRIALS}, got {self.trials}: the first {LEAST_TRIALS - 1} are always the same"
            )
        if not self.seeds:
            raise SettingsError("seeds must name at least one")
        self.comparison()
        self.stress((0,), 4)

    @property
    def proxy_steps(self) -> int:
        """Optimizer steps of a short one."""
        return max(4, round(self.proxy * self.steps))

    @property
    def ramp_steps(self) -> int:
        """Optimizer steps of a ramp, which has to learn something on its way."""
        return max(LEAST_STEPS, round(self.steps / 2))

    def comparison(self) -> CompareSettings:
        """What the full trainings have in common."""
        return self._comparison(layers=self.layers, init=self.init, placements=("pre",), seeds=self.seeds, out=self.out)

    def stress(self, counts: tuple[int, ...], layers: int) -> StressSettings:
        """The ramps of some numbers of Post-LN layers."""
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
