"""The form of a recipe; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mixln.compare.settings import GridSettings
from mixln.errors import SettingsError, unknown

Scale = Literal["cpu", "paper"]
Place = tuple[str, str]
"""A row or column of what was published: the name of a run, and a placement in it; of a model or preset, its name and nothing."""
Published = Mapping[str, Mapping[Place, float]]
"""Quantity → where → the published number, as it is printed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One comparison of a recipe.

    :param name: of the model or row, as the paper writes it. It is the same at both scales.
    :param settings: complete, but for where it lies.
    :param diagnosed: whether the layers of every trial are measured too.
    """

    name: str
    settings: GridSettings
    diagnosed: bool = False

    @property
    def trials(self) -> int:
        """How many trainings it is."""
        settings = self.settings
        return len(settings.placements) * len(settings.learning_rates) * len(settings.seeds)


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """That the paper has one model ahead of another.

    :param quantity: by what, see :data:`mixln.recipes.quantities.QUANTITIES`.
    :param ours: that it is a question of ours, after the paper's pattern: it is answered, and not counted as the paper's.
    """

    quantity: str
    ahead: Place
    behind: Place
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One table or figure.

    :param title: what it is.
    :param source: paper and place.
    :param reading: what of it is ours, where the paper leaves something open or contradicts itself.
    :param terms: the same of what it has in common with others of the paper.
    :param scaled: what the small scale makes smaller.
    :param minutes: what the small scale took on two cores; of a part of a recipe its share by trainings.
    :param runs: scale and where the data lie (`None`: where the recipe looks for itself) → the comparisons.
    :param models: scale → name → checkpoints that exist, to be diagnosed.
    :param presets: name → preset, whose sizes are counted.
    :param published: the numbers.
    :param curves: what its figure draws, see :data:`mixln.recipes.curves.CURVES`; with `angles`, the angular distance of all blocks too.
    :param judged: the quantities whose orderings are judged; left out, all that are published. Of tasks beside their mean, the mean.
    :param stated_orderings: orderings that do not follow from numbers of one run against its baseline.
    """

    title: str
    source: str
    reading: str
    scaled: str
    minutes: int
    terms: str = ""
    runs: Callable[[Scale, str | None], tuple[Run, ...]] = lambda scale, data: ()
    models: Callable[[Scale], Mapping[str, str]] = lambda scale: {}
    presets: Mapping[str, str] = field(default_factory=dict)
    published: Published = field(default_factory=dict)
    curves: tuple[str, ...] = ()
    angles: bool = False
    judged: tuple[str, ...] = ()
    stated_orderings: tuple[Ordering, ...] = ()
    baseline: str = "pre"

    @property
    def whole_reading(self) -> str:
        """Terms and reading."""
        return f"{self.terms} {self.reading}".strip()

    @property
    def paper(self) -> str:
        """The paper's name."""
        return self.source.partition(",")[0]

    @property
    def orderings(self) -> tuple[Ordering, ...]:
        """All orderings: of every published number which side of its run's baseline it is on, and those beside."""
        from mixln.recipes.quantities import QUANTITIES

        found = []
        for quantity in self.judged or self.published:
            numbers = self.published[quantity]
            for (run, placement), value in numbers.items():
                reference = numbers.get((run, self.baseline))
                if placement == self.baseline or reference is None or value == reference:
                    continue
                ahead = (value < reference) == QUANTITIES[quantity].metric.lower_is_better
                pair = ((run, placement), (run, self.baseline))
                found.append(Ordering(quantity=quantity, ahead=pair[not ahead], behind=pair[ahead]))
        return (*found, *self.stated_orderings)

    def only(self, names: tuple[str, ...], scale: Scale) -> Recipe:
        """The same of some of its models alone.

        :param names: as the paper has them, see :class:`Run`.
        :raises SettingsError: if it has none of a name.
        """
        known = [*(run.name for run in self.runs(scale, None)), *self.models(scale), *self.presets]
        for name in names:
            if name not in known:
                raise SettingsError(unknown("only", name, known))
            if names.count(name) > 1:
                raise SettingsError(f"only must not repeat, got {name} twice")
        every = {**{run.name: run.trials for run in self.runs(scale, None)}, **dict.fromkeys(self.models(scale), 1)}
        share = sum(count for name, count in every.items() if name in names) / max(1, sum(every.values()))
        return replace(
            self,
            title=f"{self.title}; {', '.join(name for name in known if name in names)} alone",
            minutes=max(1, round(self.minutes * share)),
            runs=lambda scale, data: tuple(run for run in self.runs(scale, data) if run.name in names),
            models=lambda scale: {name: model for name, model in self.models(scale).items() if name in names},
            presets={name: preset for name, preset in self.presets.items() if name in names},
            published={
                quantity: {place: value for place, value in numbers.items() if place[0] in names}
                for quantity, numbers in self.published.items()
            },
            stated_orderings=tuple(
                ordering for ordering in self.stated_orderings if {ordering.ahead[0], ordering.behind[0]} <= set(names)
            ),
        )


def row(run: str, numbers: Mapping[str, float]) -> dict[Place, float]:
    """The published numbers of one run, by placement."""
    return {(run, placement): value for placement, value in numbers.items()}
