"""What a chain shows, in sentences."""

from __future__ import annotations

from typing import Any

from mixln import formats
from mixln.compare.chain_findings import (
    ChainInterrupted,
    IdenticalAccuracy,
    JudgesAtChance,
    PlacementsAtChance,
    RewardDifference,
    RewardHacking,
    RewardModelDiverged,
    SharedJudge,
    SingleChainSeed,
    StalledBefore,
    TaskDifference,
    chain_findings,
)
from mixln.compare.results import Interruption, Interval, Summary
from mixln.evaluation.findings import LimitedQuestions
from mixln.findings import Finding
from mixln.metrics import SHARE, Metric
from mixln.report.wording.evaluation import limited
from mixln.report.wording.phrases import NO_CLAIM, NOT_SIGNIFICANT, capitalised, listed

ACCURACY: Metric[Any] = Metric(
    name="accuracy",
    value=lambda _: None,
    transform=SHARE,
    lower_is_better=False,
    change=formats.points,
    change_unit=" points",
)
REWARD: Metric[Any] = Metric(name="reward", value=lambda _: None, lower_is_better=False, change=formats.signed)


def notes(summary: Summary) -> tuple[str, ...]:
    """All sentences; none without a chain."""
    return tuple(map(sentence, chain_findings(summary)))


def sentence(finding: Finding) -> str:
    """One finding in words."""
    match finding:
        case TaskDifference():
            said = _difference(ACCURACY, finding.interval)
            return f"{finding.subject.title} against {finding.baseline.title}, mean task accuracy: {said}."
        case RewardDifference():
            said = _difference(REWARD, finding.interval)
            return f"{finding.subject.title} against {finding.baseline.title}, final reward: {said}."
        case PlacementsAtChance():
            who = listed(subject.title for subject in finding.subjects)
            return (
                f"The mean task accuracy of {who} is not significantly above chance level ({100 * finding.chance:.1f}%): differences "
                "between models at chance level say nothing about their layers."
            )
        case IdenticalAccuracy():
            who = listed(f"{subject.title} ({task})" for subject, task in finding.accuracies)
            return (
                f"All seeds of {who} have exactly the same accuracy, as models do that give the same answer to every question: the "
                "interval over seeds has no width there and understates the error."
            )
        case LimitedQuestions():
            return limited(finding)
        case SingleChainSeed():
            return NO_CLAIM
    return _reinforcement(finding)


def interruption(found: Interruption) -> str:
    """Why a chain ended before its last step."""
    match found.kind:
        case "pretraining":
            return f"the pre-training {found.status}"
        case "no-reward-model":
            return f"{found.step}: the baseline has no reward model at this seed to judge all placements by"
        case "divergence":
            return f"{found.step} diverged at step {found.optimizer_step:,}" + (
                f": {found.reason}" if found.reason else ""
            )
        case "error":
            return found.reason


def _reinforcement(finding: Finding) -> str:
    """On rewards, and on the trials that did not get to the end."""
    match finding:
        case RewardHacking():
            trials = "; ".join(trial.label for trial in finding.trials)
            return (
                f"The reward of {trials} rose while the policy itself judged fewer held-out pairs correctly: a sign of reward hacking "
                "(over-optimisation of the reward model)."
            )
        case SharedJudge():
            return (
                f"All placements of a seed were judged by one reward model, that of {finding.baseline.title}: rewards of different "
                "reward models are not on the same scale. For the same reason only paired differences compare placements across seeds."
            )
        case JudgesAtChance():
            judges = listed(
                f"seed {seed} ({100 * value:.1f} ± {100 * error:.1f}% correct)" for seed, value, error in finding.judges
            )
            return (
                f"The reward model of {judges} is not significantly above chance on held-out pairs of chosen and rejected answers: its "
                "rewards mean little."
            )
        case StalledBefore():
            trials = "; ".join(trial.label for trial in finding.trials)
            return f"Stalled in the pre-training, but taken through all steps: {trials}."
        case RewardModelDiverged():
            return f"{capitalised(finding.trial.label)}: its own reward model diverged at step {finding.step:,}."
        case ChainInterrupted():
            return f"{capitalised(finding.trial.label)}: {interruption(finding.interruption)}."
    raise TypeError(f"no sentence for {finding!r}")


def _difference(metric: Metric[Any], interval: Interval) -> str:
    middle = metric.say_change(interval.mean)
    if interval.low is None or interval.high is None:
        return f"{middle} (n = {interval.pairs}, no interval, no claim)"
    if interval.pointlike:
        return f"{middle} (identical at every seed: no interval, no claim)"
    ends = f"[{metric.change(interval.low)}, {metric.change(interval.high)}]"
    return (
        f"{middle} {ends}, {'significant (the interval excludes zero)' if interval.excludes_zero else NOT_SIGNIFICANT}"
    )
