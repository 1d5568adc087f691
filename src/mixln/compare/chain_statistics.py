"""The statistics of a chain, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from statistics import mean
from typing import Any

from mixln.compare import words
from mixln.compare.chain_settings import ChainSettings
from mixln.compare.results import AVERAGE, Chain, ChainResult, ChainRow, Interval, Mean, PlacementSummary
from mixln.compare.statistics import paired_difference, t_interval
from mixln.runs.outcome import Tuned, hacked
from mixln.runs.trials import Trial

Values = dict[str, float]
TRAININGS: dict[str, Callable[[ChainResult], Tuned | None]] = {
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
    stalled: Collection[Trial] = (),
) -> Chain:
    """One row a placement, at its best learning rate of the pre-training; differences are paired with the baseline's by seed.

    :param stalled: trials that learnt little in the pre-training, and went through the steps all the same.
    """
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
        notes=tuple(_notes(rows, results, tasks, chance, chain, baseline, stalled)),
    )


def trainings_of(result: ChainResult) -> list[Tuned]:
    """Those of its steps that trained something, as far as it came."""
    return [tuned for of in TRAININGS.values() if (tuned := of(result))]


def figures_of(result: ChainResult) -> Values:
    """Everything that was measured of one trial, by name."""
    found: Values = {}
    if result.scores:
        accuracies = {
            score.task: score.metrics[0].value for score in result.scores.scores if score.metrics[0].chance is not None
        }
        found |= accuracies
        found |= {score.task: score.metrics[-1].value for score in result.scores.scores if score.task not in accuracies}
        if accuracies:
            found[AVERAGE] = mean(accuracies.values())
    for step, of in TRAININGS.items():
        if tuned := of(result):
            found |= {f"{step} {name}": figure.value for name, figure in tuned.after.items()}
            if tuned.after:  # of a seed that diverged neither: before and after are means over the same seeds
                found |= {f"{step} {name} before": figure.value for name, figure in tuned.before.items()}
    return found


def _figures(by_seed: dict[int, Values], baseline: dict[int, Values] | None) -> dict[str, Mean]:
    names = dict.fromkeys(name for values in by_seed.values() for name in values)
    found = {}
    for name in names:
        values = {seed: each[name] for seed, each in by_seed.items() if name in each}
        difference: Interval | None = None
        if baseline is not None:
            difference = paired_difference(
                values, {seed: each[name] for seed, each in baseline.items() if name in each}
            )
        found[name] = _mean(list(values.values()), difference)
    return found


def _mean(values: Sequence[float], difference: Interval | None) -> Mean:
    middle, low, high = t_interval(values)
    return Mean(value=middle, low=low, high=high, seeds=len(values), difference=difference)


def _notes(
    rows: Sequence[ChainRow],
    results: Sequence[ChainResult],
    tasks: Sequence[str],
    chance: dict[str, float],
    chain: ChainSettings,
    baseline: str,
    stalled: Collection[Trial],
) -> list[str]:
    notes = []
    first = next(row for row in rows if row.placement == baseline)
    reference, rate = first.title, first.learning_rate
    judges = {r.trial for r in results if (r.trial.placement, r.trial.learning_rate) == (baseline, rate)}
    for row in rows:
        if row.placement == baseline:
            continue
        if (average := row.figures.get(AVERAGE)) and average.difference:
            notes.append(
                f"{row.title} against {reference}, mean accuracy of the tasks: {_said(average.difference, 100, ' points')}."
            )
        if (reward := row.figures.get("rlhf reward")) and reward.difference:
            notes.append(f"{row.title} against {reference}, final reward: {_said(reward.difference, 1, '')}.")
    if tasks:
        blind = [
            row.title
            for row in rows
            if (average := row.figures.get(AVERAGE)) and guesses(average.value, average.low, chance[AVERAGE])
        ]
        if blind:
            notes.append(
                f"The mean accuracy of {', '.join(blind)} is not above guessing ({100 * chance[AVERAGE]:.1f}%) by more than it varies: "
                "differences between models that guess say nothing about their layers."
            )
        alike = [
            f"{row.title} ({task})"
            for row in rows
            for task in tasks
            if (accuracy := row.figures.get(task)) and accuracy.low is not None and accuracy.low == accuracy.high
        ]
        if alike:
            notes.append(
                f"All seeds of {', '.join(alike)} have the same accuracy to the last question, as models have that give one answer "
                "to all: the interval over seeds has no width there, and is not the error."
            )
        if chain.evaluate.limit is not None:
            notes.append(
                f"Only the first questions of each task were asked (--evaluate.limit {chain.evaluate.limit:,})."
            )
    if len({result.trial.seed for result in results}) == 1:
        notes.append("One seed: no interval, and no claim.")
    if learnt := [result.trial.label for result in results if result.rlhf and hacked(result.rlhf)]:
        notes.append(
            f"The reward of {'; '.join(learnt)} rose while fewer held-out pairs were judged rightly by the policy itself: "
            "a sign that the reward model was learnt, and not what it stands for."
        )
    if "rlhf" in chain.chain:
        notes.append(
            f"All placements of a seed were judged by one reward model, that of {reference}: "
            "rewards of different reward models have no common scale. Between seeds they have none either: it is the paired difference "
            "that compares placements."
        )
        if coins := [said for result in results if result.trial in judges and (said := _coin(result))]:
            notes.append(
                f"The judge of {', '.join(coins)} tells chosen from rejected held-out answers no better than a coin: "
                "its rewards mean little."
            )
    if known := [r.trial.label for r in results if r.trial in stalled and r.status == "finished"]:
        notes.append(f"Stalled in the pre-training, and taken through the steps all the same: {'; '.join(known)}.")
    notes += [
        f"{result.trial.placement}, seed {result.trial.seed}: its own reward model diverged at step {result.reward.step}."
        for result in results
        if result.reward is not None and result.reward.status == "diverged"
    ]
    notes += [
        f"{result.trial.placement}, learning rate {result.trial.learning_rate:g}, seed {result.trial.seed}: {result.reason}."
        for result in results
        if result.reason
    ]
    return notes


def guesses(mean: float, low: float | None, chance: float) -> bool:
    """Whether a mean accuracy is not above guessing by more than it varies.

    :param low: lower end of its interval; `None` if it has none.
    """
    return (mean if low is None else low) <= chance


def _coin(result: ChainResult) -> str:
    """A reward model that is no better than chance on held-out pairs, in words; empty if it is better."""
    pairs = result.reward.after.get("accuracy") if result.reward else None
    if pairs is None or pairs.error is None or pairs.value - 0.5 > 1.96 * pairs.error:
        return ""
    return f"seed {result.trial.seed} ({100 * pairs.value:.1f} ± {100 * pairs.error:.1f}% right)"


def _said(interval: Interval, scale: float, unit: str) -> str:
    middle = f"{scale * interval.mean:+.3g}{unit}".replace("-", words.MINUS)
    if interval.low is None or interval.high is None:
        return f"{middle} (n = {interval.pairs}, no interval, no claim)"
    if interval.low == interval.high:
        return f"{middle} (the same at every seed: no interval, no claim)"
    ends = f"[{scale * interval.low:+.3g}, {scale * interval.high:+.3g}]".replace("-", words.MINUS)
    judgement = "the interval excludes zero" if interval.excludes_zero else "these seeds cannot tell it from zero"
    return f"{middle} {ends}, {judgement}"
