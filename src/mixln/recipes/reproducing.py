"""Runs a recipe: trains the missing trials, collects the evidence and judges it; optionally with the authors' deviations."""

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
"""Folder and trial → seconds of training, including fine-tuning and reinforcement learning."""


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """The result with the paper's settings.

    :param summaries: name of a run → its comparison.
    """

    found: Reproduction
    known: EvidenceByPlace
    summaries: Mapping[str, Summary]
    costs: Costs


@dataclass(frozen=True, kw_only=True)
class RecipeRunner:
    """Runs one recipe.

    :param name: name of the recipe.
    :param recipe: the recipe, restricted to the models in `only` if there are any.
    :param command: the command line.
    :param out: folder of all recipes.
    :param show: runs a comparison, or the missing part of it, and shows it under a name.
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
        """Runs the recipe with the paper's settings."""
        runs = self._placed(RecipeVariant())
        summaries = {run.name: self._trained(run, run.name) for run in runs}
        costs = costs_of(runs, summaries)
        known: dict[Place, Seeds] = dict(of_models(self.recipe, self.scale, cache=self.cache))
        known.update(of_presets(self.recipe))
        for run in runs:
            known.update(self._gathered(run, summaries[run.name], RecipeVariant()))
        orderings = [ordering_result(ordering, self.recipe, known) for ordering in self.recipe.orderings]
        reproduction = Reproduction(
            recipe=self.name,
            scale=self.scale,
            only=self.only,
            command=self.command,
            trained=tuple(map(trained_run, runs)),
            measured=measured(self.recipe, known),
            orderings=tuple(ordering for ordering in orderings if ordering.verdict != "not-measured"),
            seconds=sum(costs.values()),
            lines=tuple(lines(self.recipe, known)),
            turned=tuple(angular_distance_maps(self.recipe, known)),
            swept=tuple(point for run in runs for point in sweep_points(run, summaries[run.name])),
            provenance=_provenance(summaries.values()),
        )
        return PaperResult(found=reproduction, known=known, summaries=summaries, costs=costs)

    def varied(self, variants: Iterable[RecipeVariant], plain: PaperResult) -> Iterator[DeviationStudy]:
        """Runs the variants and yields the study after each. Runs that a variant does not change are not trained again."""
        study = DeviationStudy(
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
            study = replace(study, varied=(*study.varied, self._varied(variant, plain)))
            yield study

    def _varied(self, variant: RecipeVariant, plain: PaperResult) -> VariantResult:
        runs, known, summaries = self._placed(variant), dict(plain.known), dict(plain.summaries)
        originals = self._placed(RecipeVariant())
        new = [run for run, original in zip(runs, originals, strict=True) if run.settings != original.settings]
        summaries.update((run.name, self._trained(run, f"{run.name}-{variant.name}")) for run in new)
        for run in runs:
            known.update(self._gathered(run, summaries[run.name], variant))
        costs = costs_of(new, summaries)
        judged = {(ordering.quantity, ordering.ahead, ordering.behind) for ordering in plain.found.orderings}
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
        # Read here and not earlier, because another run of this recipe may have created the folder.
        exists = Store(run.settings.out).read() is not None
        return self.show(replace(run.settings, extend=exists), name)

    def _gathered(self, run: Run, summary: Summary, variant: RecipeVariant) -> EvidenceByPlace:
        return dict(of_run(run, summary, variant=variant, cache=self.cache))


def costs_of(runs: Iterable[Run], summaries: Mapping[str, Summary]) -> Costs:
    """The training time of each trial of the runs."""
    costs: dict[tuple[Path, Trial], float] = {}
    for run in runs:
        trained = [(result.trial, result.seconds) for result in summaries[run.name].trials]
        if chain := summaries[run.name].chain:
            trained += [(result.trial, tuned.seconds) for result in chain.results for tuned in trainings_of(result)]
        for trial, seconds in trained:
            if trial.placement in run.settings.placements:
                costs[run.settings.out, trial] = costs.get((run.settings.out, trial), 0.0) + seconds
    return costs


def _provenance(summaries: Iterable[Summary]) -> tuple[Provenance, ...]:
    """The distinct provenances of the comparisons; without any, that of this process."""
    distinct: list[Provenance] = []
    for provenance in [summary.provenance for summary in summaries] or [here()]:
        if provenance not in distinct:
            distinct.append(provenance)
    return tuple(distinct)
