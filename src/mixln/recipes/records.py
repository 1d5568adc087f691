"""Records of a recipe. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mixln.compare.settings import GridSettings
from mixln.errors import SettingsError, unknown

Scale = Literal["cpu", "paper"]
Place = tuple[str, str]
"""Run name and placement of a published number; for an existing model or a preset, its name and an empty string."""
Published = Mapping[str, Mapping[Place, float]]
"""Quantity → place → number as printed in the paper."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One comparison of a recipe.

    :param name: name of the model or row in the paper; the same at both scales.
    :param settings: complete settings except for the output folder.
    :param diagnosed: whether every trial is also diagnosed.
    """

    name: str
    settings: GridSettings
    diagnosed: bool = False

    @property
    def trials(self) -> int:
        """Number of trainings."""
        settings = self.settings
        return len(settings.placements) * len(settings.learning_rates) * len(settings.seeds)


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """A claim that one model is ahead of another.

    :param quantity: the quantity compared, see :data:`mixln.recipes.quantities.QUANTITIES`.
    :param ours: whether mixln, not the paper, poses the question; its verdict is not counted among the paper's.
    """

    quantity: str
    ahead: Place
    behind: Place
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A table or figure of a paper as comparisons to run.

    :param title: title.
    :param source: paper, and table or figure.
    :param reading: choices made where the paper is silent or contradicts itself.
    :param terms: such choices that are common to several recipes of the paper.
    :param scaled: reductions at the small scale.
    :param minutes: duration of the small scale on two cores; for a part of a recipe, in proportion to its trainings.
    :param runs: scale and data (`None` for the recipe's default) → the comparisons.
    :param models: scale → name → existing checkpoint to diagnose.
    :param presets: name → preset whose parameters are counted.
    :param published: the published numbers.
    :param curves: curves of its figure, see :data:`mixln.recipes.curves.CURVES`.
    :param angles: whether its figure shows the angular distance of all blocks.
    :param judged: quantities whose orderings are judged; by default all published ones.
    :param stated_orderings: orderings that do not follow from published numbers of one run and its baseline.
    :param baseline: placement to which published numbers of a run are compared.
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
        """Terms followed by the reading."""
        return f"{self.terms} {self.reading}".strip()

    @property
    def paper(self) -> str:
        """The paper's name."""
        return self.source.partition(",")[0]

    @property
    def orderings(self) -> tuple[Ordering, ...]:
        """All orderings: every published number against the baseline of its run, followed by the stated orderings."""
        from mixln.recipes.quantities import QUANTITIES

        orderings = []
        for quantity in self.judged or self.published:
            numbers = self.published[quantity]
            for (run, placement), value in numbers.items():
                reference = numbers.get((run, self.baseline))
                if placement == self.baseline or reference is None or value == reference:
                    continue
                ahead = (value < reference) == QUANTITIES[quantity].metric.lower_is_better
                pair = ((run, placement), (run, self.baseline))
                orderings.append(Ordering(quantity=quantity, ahead=pair[not ahead], behind=pair[ahead]))
        return (*orderings, *self.stated_orderings)

    def only(self, names: tuple[str, ...], scale: Scale) -> Recipe:
        """The recipe restricted to some of its models.

        :param names: names in the paper, see :class:`Run`.
        :raises SettingsError: if a name is not known or repeated.
        """
        trainings = {**{run.name: run.trials for run in self.runs(scale, None)}, **dict.fromkeys(self.models(scale), 1)}
        known = [*trainings, *self.presets]
        for name in names:
            if name not in known:
                raise SettingsError(unknown("only", name, known))
            if names.count(name) > 1:
                raise SettingsError(f"only must not repeat, got {name} twice")
        share = sum(count for name, count in trainings.items() if name in names) / max(1, sum(trainings.values()))
        return replace(
            self,
            title=f"{self.title}; {', '.join(name for name in known if name in names)} only",
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
