"""Findings of a chain, as data: differences after the last steps, and the limits of their significance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixln.compare.chain_statistics import at_chance
from mixln.compare.findings import Subject, subject_of
from mixln.compare.results import AVERAGE, REWARD, Chain, ChainResult, ChainRow, Interruption, Interval, Summary, Trial
from mixln.evaluation.findings import LimitedQuestions, Z
from mixln.findings import Finding
from mixln.runs.outcome import hacked

"""Name of the final reward in the figures of a chain."""


@dataclass(frozen=True, kw_only=True)
class TaskDifference(Finding):
    """The difference of a placement's mean task accuracy, a share, from the baseline's."""

    subject: Subject
    baseline: Subject
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class RewardDifference(Finding):
    """The difference of a placement's final reward from the baseline's."""

    subject: Subject
    baseline: Subject
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class PlacementsAtChance(Finding):
    """Placements whose mean task accuracy is not significantly above chance level (`chance`, a share)."""

    subjects: tuple[Subject, ...]
    chance: float


@dataclass(frozen=True, kw_only=True)
class IdenticalAccuracy(Finding):
    """Placements and tasks with equal accuracy at every seed, so that the interval has no width."""

    accuracies: tuple[tuple[Subject, str], ...]


@dataclass(frozen=True, kw_only=True)
class SingleChainSeed(Finding):
    """The chain was run for one seed."""


@dataclass(frozen=True, kw_only=True)
class RewardHacking(Finding):
    """Trials whose reward rose while the policy itself judged fewer held-out pairs correctly."""

    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class SharedJudge(Finding):
    """All placements of a seed were judged by the reward model of the baseline."""

    baseline: Subject


@dataclass(frozen=True, kw_only=True)
class JudgesAtChance(Finding):
    """Reward models not significantly above chance level on held-out pairs: seed, accuracy and its standard error, shares."""

    judges: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class StalledBefore(Finding):
    """Trials that stalled in the pre-training and completed the chain."""

    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class RewardModelDiverged(Finding):
    """A trial whose own reward model diverged at this optimizer step."""

    trial: Trial
    step: int


@dataclass(frozen=True, kw_only=True)
class ChainInterrupted(Finding):
    """A trial that did not complete the chain."""

    trial: Trial
    interruption: Interruption


def chain_findings(summary: Summary) -> tuple[Finding, ...]:
    """The findings of a comparison's chain; empty without one. They are computed from the numbers, and not stored."""
    chain = summary.chain
    if chain is None:
        return ()
    baseline = next(row for row in chain.rows if row.placement == summary.baseline)
    stalled = {result.trial for result in summary.trials if result.status == "stalled"}
    return (
        *_differences(chain, baseline),
        *(_accuracies(chain) if chain.tasks else ()),
        *([SingleChainSeed()] if len({result.trial.seed for result in chain.results}) == 1 else []),
        *_rewards(chain, baseline),
        *_ends(chain, stalled),
    )


def _differences(chain: Chain, baseline: ChainRow) -> Iterator[Finding]:
    for row in chain.rows:
        if row is baseline:
            continue
        for figure, kind in ((AVERAGE, TaskDifference), (REWARD, RewardDifference)):
            mean = row.figures.get(figure)
            if mean is not None and mean.difference is not None:
                yield kind(subject=subject_of(row), baseline=subject_of(baseline), interval=mean.difference)


def _accuracies(chain: Chain) -> Iterator[Finding]:
    chance = chain.chance[AVERAGE]
    means = [(row, row.figures[AVERAGE]) for row in chain.rows if AVERAGE in row.figures]
    if at_chance_level := tuple(subject_of(row) for row, mean in means if at_chance(mean.value, mean.low, chance)):
        yield PlacementsAtChance(subjects=at_chance_level, chance=chance)
    same = tuple(
        (subject_of(row), task)
        for row in chain.rows
        for task in chain.tasks
        if (accuracy := row.figures.get(task)) and accuracy.low is not None and accuracy.low == accuracy.high
    )
    if same:
        yield IdenticalAccuracy(accuracies=same)
    if chain.question_limit is not None:
        yield LimitedQuestions(limit=chain.question_limit, option="--evaluate.limit")


def _rewards(chain: Chain, baseline: ChainRow) -> Iterator[Finding]:
    if trials := tuple(result.trial for result in chain.results if result.rlhf and hacked(result.rlhf)):
        yield RewardHacking(trials=trials)
    if "rlhf" not in chain.steps:
        return
    yield SharedJudge(baseline=subject_of(baseline))
    cell = (baseline.placement, baseline.learning_rate)
    judges = [r for r in chain.results if (r.trial.placement, r.trial.learning_rate) == cell]
    if at_chance_level := tuple(judge for result in judges if (judge := _at_chance(result))):
        yield JudgesAtChance(judges=at_chance_level)


def _at_chance(result: ChainResult) -> tuple[int, float, float] | None:
    """Seed, accuracy and standard error of a reward model, if the accuracy on held-out pairs is not significantly above one half."""
    pairs = result.reward.after.get("accuracy") if result.reward else None
    if pairs is None or pairs.error is None or pairs.value - 0.5 > Z * pairs.error:  # two-sided 95%, normal
        return None
    return result.trial.seed, pairs.value, pairs.error


def _ends(chain: Chain, stalled: set[Trial]) -> Iterator[Finding]:
    """Status of the trials."""
    if completed := tuple(r.trial for r in chain.results if r.trial in stalled and r.status == "finished"):
        yield StalledBefore(trials=completed)
    for result in chain.results:
        if result.reward is not None and result.reward.status == "diverged":
            yield RewardModelDiverged(trial=result.trial, step=result.reward.step)
    for result in chain.results:
        if result.interruption is not None:
            yield ChainInterrupted(trial=result.trial, interruption=result.interruption)
