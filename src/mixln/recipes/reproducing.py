"""Carries out a recipe: trains what is missing, gathers what came out, and judges it; then the same as the authors' code has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixln.compare.experiment import facts_of_run
from mixln.compare.results import Summary
from mixln.compare.settings import GridSettings
from mixln.recipes.deviations import Variant, deviating
from mixln.recipes.gather import of_models, of_presets, of_run, placed, swept
from mixln.recipes.outcome import Known, Seeds, effect, measured, ordering
from mixln.recipes.plan import settings_of
from mixln.recipes.records import Place, Recipe, Run, Scale
from mixln.recipes.results import AsPublished, Reproduction, Varied

VARIED = "as-published"
"""The folder of the trainings that deviate, in that of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What came out as the paper says.

    :param summaries: run's name → its comparison.
    """

    found: Reproduction
    known: Known
    summaries: Mapping[str, Summary]


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

    def plain(self) -> Plain:
        """As the paper says."""
        runs = [placed(run, self.out, self.cache) for run in self.recipe.runs(self.scale, self.data)]
        summaries = {run.name: self._trained(run) for run in runs}
        known: dict[Place, Seeds] = dict(of_models(self.recipe, self.scale, cache=self.cache, say=self.say))
        known.update(of_presets(self.recipe))
        for run in runs:
            known.update(self._gathered(run, summaries[run.name], Variant()))
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
            seconds=_seconds(summaries.values()),
            swept=tuple(each for run in runs for each in swept(run, summaries[run.name])),
            facts=_facts(summaries.values()),
        )
        return Plain(found=found, known=known, summaries=summaries)

    def varied(self, variants: Iterable[Variant], plain: Plain) -> Iterator[AsPublished]:
        """With each of the variants, as far as they have been tried. What they leave as it is, is not trained again."""
        found = AsPublished(
            recipe=self.name,
            title=self.recipe.title,
            source=self.recipe.source,
            scale=self.scale,
            scaled=self.recipe.scaled,
            command=self.command,
            measured=plain.found.measured,
            orderings=plain.found.orderings,
            varied=(),
        )
        for variant in variants:
            self.say(f"\nas published, {variant.name}: {variant.what}")
            found = replace(found, varied=(*found.varied, self._varied(variant, plain)))
            yield found

    def _varied(self, variant: Variant, plain: Plain) -> Varied:
        known = dict(plain.known)
        trained: list[Run] = []
        summaries: list[Summary] = []
        for run in self.recipe.runs(self.scale, self.data):
            made = deviating(run, variant)
            if made.shared:
                known.update(self._gathered(placed(run, self.out, self.cache), plain.summaries[run.name], variant))
            if made.run is not None:
                there = placed(made.run, self.out / VARIED / made.name, self.cache)
                trained.append(there)
                summaries.append(self._trained(there))
                known.update(self._gathered(there, summaries[-1], variant))
        effects = [effect(claim, self.recipe, plain.known, known) for claim in self.recipe.orderings]
        return Varied(
            name=variant.name,
            what=variant.what,
            settings=tuple(map(settings_of, trained)),
            measured=measured(self.recipe, known),
            effects=tuple(each for each in effects if each.ordering.verdict != "not measured"),
            seconds=_seconds(summaries),
            facts=_facts(summaries),
        )

    def _trained(self, run: Run) -> Summary:
        self.say(f"\n{settings_of(run)}")
        return self.show(run.settings)

    def _gathered(self, run: Run, summary: Summary, variant: Variant) -> Known:
        return dict(of_run(run, summary, variant=variant, cache=self.cache, say=self.say))


def _seconds(summaries: Iterable[Summary]) -> float:
    """Of all trainings, added up."""
    return sum(result.seconds for summary in summaries for result in summary.trials)


def _facts(summaries: Iterable[Summary]) -> dict[str, str]:
    """What trained them; of what was only counted or diagnosed, what did that."""
    facts = [summary.facts for summary in summaries] or [facts_of_run()]
    return {
        name: "; ".join(dict.fromkeys(each[name] for each in facts if name in each))
        for name in ("machine", "versions", "commit")
        if any(name in each for each in facts)
    }
