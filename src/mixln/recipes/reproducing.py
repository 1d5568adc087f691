"""Carries out a recipe: trains what is missing, gathers what came out, and judges it; then the same as the authors' code has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixln.compare.experiment import facts_of_run
from mixln.compare.results import Summary
from mixln.compare.settings import GridSettings
from mixln.recipes.deviations import Variant, changed
from mixln.recipes.gather import of_models, of_presets, of_run, placed, swept
from mixln.recipes.outcome import effect, measured, ordering
from mixln.recipes.plan import settings_of
from mixln.recipes.quantities import Evidence
from mixln.recipes.records import Place, Recipe, Run, Scale
from mixln.recipes.results import AsPublished, Reproduction, Swept, Varied

VARIED = "as-published"
"""The folder of the trainings that deviate, in that of the recipe."""
Known = Mapping[Place, Mapping[int, Evidence]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What comparisons left.

    :param seconds: run's name → of all its trainings, added up.
    """

    known: Known
    swept: tuple[Swept, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """One recipe, to be carried out.

    :param recipe: what of it was asked for; `name` is what it is called.
    :param command: what was typed.
    :param out: folder of all its trainings.
    :param show: makes a comparison, or what is missing of it.
    """

    name: str
    recipe: Recipe
    scale: Scale
    data: str | None
    command: str
    out: Path
    cache: Path
    show: Callable[[GridSettings], Summary]
    say: Callable[[str], None]

    def plain(self) -> tuple[Reproduction, Known]:
        """As the paper says."""
        runs = self.recipe.runs(self.scale, self.data)
        trained = self._trained([placed(run, self.out, self.cache) for run in runs], Variant())
        known = {
            **trained.known,
            **dict(of_models(self.recipe, self.scale, cache=self.cache, say=self.say)),
            **dict(of_presets(self.recipe)),
        }
        orderings = [ordering(claim, self.recipe, known) for claim in self.recipe.orderings]
        found = Reproduction(
            recipe=self.name,
            title=self.recipe.title,
            source=self.recipe.source,
            reading=self.recipe.reading,
            scale=self.scale,
            scaled=self.recipe.scaled,
            command=self.command,
            settings=tuple(map(settings_of, runs)),
            measured=measured(self.recipe, known),
            orderings=tuple(each for each in orderings if each.verdict != "not measured"),
            seconds=sum(trained.seconds.values()),
            swept=trained.swept,
            facts=facts_of_run(),
        )
        return found, known

    def varied(self, variants: tuple[Variant, ...], plain: Reproduction, known: Known) -> AsPublished:
        """With each of the variants. What it leaves as it is, is not trained again."""
        return AsPublished(
            recipe=self.name,
            title=self.recipe.title,
            command=self.command,
            measured=plain.measured,
            varied=tuple(self._varied(variant, known) for variant in variants),
            facts=facts_of_run(),
        )

    def _varied(self, variant: Variant, known: Known) -> Varied:
        self.say(f"\nas published, {variant.name}: {variant.what}")
        runs = self.recipe.runs(self.scale, self.data)
        pairs = list(zip(runs, changed(self.recipe, runs, variant), strict=True))
        new, folder = {run.name for run, made in pairs if made != run}, self.out / VARIED / variant.name
        trained = self._trained(
            [placed(made, folder if made.name in new else self.out, self.cache) for _, made in pairs], variant
        )
        effects = [effect(claim, self.recipe, known, trained.known) for claim in self.recipe.orderings]
        return Varied(
            name=variant.name,
            what=variant.what,
            measured=measured(self.recipe, trained.known),
            effects=tuple(each for each in effects if each.ordering.verdict != "not measured"),
            seconds=sum(trained.seconds[name] for name in new),
        )

    def _trained(self, runs: list[Run], variant: Variant) -> Trained:
        known: dict[Place, Mapping[int, Evidence]] = {}
        seconds: dict[str, float] = {}
        sweeps: list[Swept] = []
        for run in runs:
            self.say(f"\n{settings_of(run)}")
            summary = self.show(run.settings)
            seconds[run.name] = sum(result.seconds for result in summary.trials)
            sweeps += swept(run, summary)
            known.update(of_run(run, summary, variant=variant, cache=self.cache, say=self.say))
        return Trained(known=known, swept=tuple(sweeps), seconds=seconds)
