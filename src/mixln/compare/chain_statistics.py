"""Statistics of a chain over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from mixln.compare.chain_settings import ChainSettings
from mixln.compare.results import AVERAGE, Chain, ChainResult, ChainRow, Interval, Mean, PlacementSummary
from mixln.compare.statistics import paired_difference, t_interval
from mixln.runs.outcome import PostTrainingOutcome

Values = dict[str, float]
TRAININGS: dict[str, Callable[[ChainResult], PostTrainingOutcome | None]] = {
    "finetune": lambda result: result.finetuned,
    "reward": lambda result: result.reward,
    "rlhf": lambda result: result.rlhf,
}


def summarise_chain(
    results: Sequence[ChainResult],
    placements: Sequence[PlacementSummary],
    chain: ChainSettings,
    *,
    baseline: str,
    settings: dict[str, Any],
) -> Chain:
    """One row per placement, at its best learning rate of the pre-training. Differences from the baseline are paired by seed."""
    every = {
        row.placement: {
            result.trial.seed: figures_of(result)
            for result in results
            if (result.trial.placement, result.trial.learning_rate) == (row.placement, row.best.learning_rate)
        }
        for row in placements
    }
    rows = tuple(
        ChainRow(
            placement=row.placement,
            title=row.title,
            learning_rate=row.best.learning_rate,
            figures=_figures(every[row.placement], every[baseline] if row.placement != baseline else None),
        )
        for row in placements
    )
    scores = [score for result in results if result.scores for score in result.scores.scores]
    chance = {
        score.task: score.metrics[0].chance for score in scores if score.metrics and score.metrics[0].chance is not None
    }
    tasks = tuple(task for task in chain.evaluate.tasks if task in chance) if "evaluate" in chain.chain else ()
    if tasks:
        chance[AVERAGE] = mean(chance[task] for task in tasks)
    return Chain(
        steps=chain.chain,
        settings=settings,
        tasks=tasks,
        chance=chance,
        rows=rows,
        results=tuple(results),
        question_limit=chain.evaluate.limit if tasks else None,
    )


def trainings_of(result: ChainResult) -> list[PostTrainingOutcome]:
    """The outcomes of the trainings that took place."""
    return [tuned for outcome in TRAININGS.values() if (tuned := outcome(result))]


def figures_of(result: ChainResult) -> Values:
    """Name → value of everything that was measured of one trial."""
    figures: Values = {}
    if result.scores:
        accuracies = {
            score.task: score.metrics[0].value for score in result.scores.scores if score.metrics[0].chance is not None
        }
        figures |= accuracies
        figures |= {
            score.task: score.metrics[-1].value for score in result.scores.scores if score.task not in accuracies
        }
        if accuracies:
            figures[AVERAGE] = mean(accuracies.values())
    for step, outcome in TRAININGS.items():
        if tuned := outcome(result):
            figures |= {f"{step} {name}": figure.value for name, figure in tuned.after.items()}
            if tuned.after:  # neither for a seed that diverged, so that before and after are means over the same seeds
                figures |= {f"{step} {name} before": figure.value for name, figure in tuned.before.items()}
    return figures


def _figures(by_seed: dict[int, Values], baseline: dict[int, Values] | None) -> dict[str, Mean]:
    names = dict.fromkeys(name for values in by_seed.values() for name in values)
    means = {}
    for name in names:
        values = _values(by_seed, name)
        difference: Interval | None = None
        if baseline is not None:
            difference = paired_difference(values, _values(baseline, name))
        means[name] = _mean(list(values.values()), difference)
    return means


def _values(by_seed: dict[int, Values], name: str) -> dict[int, float]:
    """Seed → value of one figure."""
    return {seed: figures[name] for seed, figures in by_seed.items() if name in figures}


def _mean(values: Sequence[float], difference: Interval | None) -> Mean:
    middle, low, high = t_interval(values)
    return Mean(value=middle, low=low, high=high, seeds=len(values), difference=difference)


def at_chance(mean: float, low: float | None, chance: float) -> bool:
    """Whether a mean accuracy is not significantly above chance level.

    :param low: lower bound of its interval; `None` if it has none.
    """
    return (mean if low is None else low) <= chance
