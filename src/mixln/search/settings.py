"""The settings of searches; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from mixln.compare.settings import CompareSettings
from mixln.data.settings import TextSettings
from mixln.errors import SettingsError
from mixln.placement import canonical
from mixln.training.settings import EngineSettings, RampSettings


@dataclass(frozen=True, kw_only=True)
class StressSettings:
    """Raise the learning rate from small to breaking, and say up to which one each placement trains.

    Each training takes ever larger steps until its loss breaks: it overflows, or falls back to what word frequencies alone give.
    Without arguments: four placements of a small 12-layer Llama, two seeds, in a few minutes on two cores. Run the same command
    again to finish what was cut off; nothing is repeated.
    """

    placements: tuple[str, ...] = ("pre", "post", "mix(0.25)", "hybrid*")
    """Placements; `mixln placements` lists them. Quote those with brackets or a star. The first is what the others are compared with."""
    depths: tuple[int, ...] = ()
    """Numbers of layers. Left out, the model's own."""
    inits: tuple[str, ...] = ()
    """Initialisations, for example normal megatron. Left out, each placement has its recommended one."""
    seeds: tuple[int, ...] = (0, 1)
    """Each seed decides initial weights and data order, the same for all placements."""
    highest: float = 1.0
    """The learning rate at which the ramp ends."""
    model: str = "tiny"
    """A preset, or the path of a config.json, as for mixln compare."""
    out: Path = Path("runs/stress")
    """Folder of the trainings and of stress.json, report.html and figures."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for prepared text."""
    jobs: int | None = None
    """Trainings side by side. Left out, one a GPU; without a GPU, one a core for small models."""
    text: Annotated[TextSettings, tyro.conf.arg(name="")] = field(default_factory=TextSettings)
    training: Annotated[RampSettings, tyro.conf.arg(name="")] = field(default_factory=RampSettings)
    engine: Annotated[EngineSettings, tyro.conf.arg(name="")] = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "placements", tuple(canonical(text) for text in self.placements))
        for name in ("placements", "seeds"):
            if not getattr(self, name):
                raise SettingsError(f"{name} must name at least one")
        for name in ("placements", "depths", "inits", "seeds"):
            values = getattr(self, name)
            if doubled := [value for value in values if values.count(value) > 1]:
                raise SettingsError(f"{name} must not repeat, got {doubled[0]} twice")
        if not 0 < self.highest < math.inf:
            raise SettingsError(f"highest must be above 0, got {self.highest}")
        self.comparison(next(iter(self.depths), None), next(iter(self.inits), None))

    @property
    def lowest(self) -> float:
        """The learning rate at which the ramp begins."""
        return self.highest * self.training.share(0, steps=2, warmup_steps=0)

    @property
    def steps(self) -> int:
        """Optimizer steps of one ramp."""
        return self.training.total_steps(self.text.sequence_length)

    def comparison(self, depth: int | None, init: str | None) -> CompareSettings:
        """The trainings of one depth and one init; `None` for the model's and the placements' own."""
        words = [*([f"{depth}-layers"] if depth else []), *([init] if init else [])]
        return CompareSettings(
            model=self.model,
            layers=depth,
            init=init,
            placements=self.placements,
            learning_rates=(self.highest,),
            seeds=self.seeds,
            jobs=self.jobs,
            text=self.text,
            training=self.training,
            engine=self.engine,
            out=self.out / ("_".join(words) or "ramps"),
            cache=self.cache,
        )
