"""Carries out a recipe: trains what is missing, gathers what came out, and judges it; then the same as the authors' code has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixln.compare.chain_statistics import trainings_of
from mixln.compare.results import Summary
from mixln.compare.settings import GridSettings
from mixln.compare.store import Store
from mixln.recipes.curves import angular_distance_maps, lines
from mixln.recipes.deviations import RecipeVariant, changed
from mixln.recipes.evidence import of_models, of_presets, of_run, sweep_points
from mixln.recipes.folders import TRAININGS, placed
from mixln.recipes.outcome import EvidenceByPlace, Seeds, effect, measured, ordering_result
from mixln.recipes.plan import trained_run
from mixln.recipes.records import Place, Recipe, Run, Scale
from mixln.recipes.results import DeviationStudy, Reproduction, VariantResult
from mixln.runs.provenance import Provenance, here
from mixln.runs.trials import Trial

log = logging.getLogger(__name__)

Costs = Mapping[tuple[Path, Trial], float]
"""Folder and trial → seconds that it trained, in its fine-tuning and reinforcement learning too."""


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """What came out as the paper says.

    :param summaries: run's name → its comparison.
    """

    found: Reproduction
    known: EvidenceByPlace
    summaries: Mapping[str, Summary]
    costs: Costs


@dataclass(frozen=True, kw_only=True)
class RecipeRunner:
    """One recipe, to be carried out.

    :param recipe: what of it was asked for: `only` some models, if any are named. `name` is what it is called.
    :param command: what was typed.
    :param out: folder of all recipes.
    :param show: makes a comparison, or what is missing of it, and shows it under a name.
    """

    name: str
    recipe: Recipe
    only: tuple[str, ...]
    scale: Scale
    data: str | None
    command: str
    out: Path
    cache: Path
    show: Callable[[GridSettings, str], Summary]

    def plain(self) -> PaperResult:
        """As the paper says."""
        runs = self._placed(RecipeVariant())
        summaries = {run.name: self._trained(run, run.name) for run in runs}
        costs = costs_of(runs, summaries)
        known: dict[Place, Seeds] = dict(of_models(self.recipe, self.scale, cache=self.cache))
        known.update(of_presets(self.recipe))
        for run in runs:
            known.update(self._gathered(run, summaries[run.name], RecipeVariant()))
        orderings = [ordering_result(ordering, self.recipe, known) for ordering in self.recipe.orderings]
        found = Reproduction(
            recipe=self.name,
            scale=self.scale,
            only=self.only,
            command=self.command,
            trained=tuple(map(trained_run, runs)),
            measured=measured(self.recipe, known),
            orderings=tuple(each for each in orderings if each.verdict != "not-measured"),
            seconds=sum(costs.values()),
            lines=tuple(lines(self.recipe, known)),
            turned=tuple(angular_distance_maps(self.recipe, known)),
            swept=tuple(each for run in runs for each in sweep_points(run, summaries[run.name])),
            provenance=_provenance(summaries.values()),
        )
        return PaperResult(found=found, known=known, summaries=summaries, costs=costs)

    def varied(self, variants: Iterable[RecipeVariant], plain: PaperResult) -> Iterator[DeviationStudy]:
        """With each of the variants, as far as they have been tried. What they leave as it is, is not trained again."""
        found = DeviationStudy(
            recipe=self.name,
            scale=self.scale,
            only=self.only,
            command=self.command,
            measured=plain.found.measured,
            orderings=plain.found.orderings,
            varied=(),
        )
        for variant in variants:
            log.info(f"\nas published, {variant.name}: {variant.what}")
            found = replace(found, varied=(*found.varied, self._varied(variant, plain)))
            yield found

    def _varied(self, variant: RecipeVariant, plain: PaperResult) -> VariantResult:
        runs, known, summaries = self._placed(variant), dict(plain.known), dict(plain.summaries)
        new = [
            made for made, run in zip(runs, self._placed(RecipeVariant()), strict=True) if made.settings != run.settings
        ]
        summaries.update((run.name, self._trained(run, f"{run.name}-{variant.name}")) for run in new)
        for run in runs:
            known.update(self._gathered(run, summaries[run.name], variant))
        costs = costs_of(new, summaries)
        judged = {(each.quantity, each.ahead, each.behind) for each in plain.found.orderings}
        orderings = [
            ordering
            for ordering in self.recipe.orderings
            if (ordering.quantity, ordering.ahead, ordering.behind) in judged
        ]
        return VariantResult(
            name=variant.name,
            trained=tuple(map(trained_run, new)),
            measured=measured(self.recipe, known),
            effects=tuple(effect(ordering, self.recipe, plain.known, known) for ordering in orderings),
            seconds=sum(seconds for training, seconds in costs.items() if training not in plain.costs),
            provenance=_provenance([summaries[run.name] for run in new]),
        )

    def _placed(self, variant: RecipeVariant) -> list[Run]:
        runs = (changed(run, variant) for run in self.recipe.runs(self.scale, self.data))
        return [placed(run, self.out / TRAININGS, self.cache) for run in runs]

    def _trained(self, run: Run, name: str) -> Summary:
        log.info(f"\n{run.name}: {run.settings.model}; {', '.join(run.settings.placements)}")
        there = Store(run.settings.out).read() is not None  # now, for another recipe may have made it meanwhile
        return self.show(replace(run.settings, extend=there), name)

    def _gathered(self, run: Run, summary: Summary, variant: RecipeVariant) -> EvidenceByPlace:
        return dict(of_run(run, summary, variant=variant, cache=self.cache))


def costs_of(runs: Iterable[Run], summaries: Mapping[str, Summary]) -> Costs:
    """Of each trial of the runs, how long it trained."""
    found: dict[tuple[Path, Trial], float] = {}
    for run in runs:
        trained = [(result.trial, result.seconds) for result in summaries[run.name].trials]
        if chain := summaries[run.name].chain:
            trained += [(result.trial, tuned.seconds) for result in chain.results for tuned in trainings_of(result)]
        for trial, seconds in trained:
            if trial.placement in run.settings.placements:
                found[run.settings.out, trial] = found.get((run.settings.out, trial), 0.0) + seconds
    return found


def _provenance(summaries: Iterable[Summary]) -> tuple[Provenance, ...]:
    """What trained them; of what was only counted or diagnosed, what did that."""
    found: list[Provenance] = []
    for each in [summary.provenance for summary in summaries] or [here()]:
        if each not in found:
            found.append(each)
    return tuple(found)
