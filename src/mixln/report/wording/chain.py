"""Sentences on the findings of a chain."""

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
from mixln.compare.metrics import ACCURACY
from mixln.compare.results import Interruption, Interval, Summary
from mixln.evaluation.findings import LimitedQuestions
from mixln.findings import Finding
from mixln.metrics import Metric
from mixln.report.wording.evaluation import limited
from mixln.report.wording.phrases import NO_CLAIM, NOT_SIGNIFICANT, REWARD_HACKING, capitalised, listed

REWARD: Metric[Any] = Metric(name="reward", value=lambda _: None, lower_is_better=False, change=formats.signed)


def notes(summary: Summary) -> tuple[str, ...]:
    """One sentence per finding; empty without a chain."""
    return tuple(map(sentence, chain_findings(summary)))


def sentence(finding: Finding) -> str:
    """The sentence on one finding."""
    match finding:
        case TaskDifference():
            difference = _difference(ACCURACY, finding.interval)
            return f"{finding.subject.title} against {finding.baseline.title}, mean task accuracy: {difference}."
        case RewardDifference():
            difference = _difference(REWARD, finding.interval)
            return f"{finding.subject.title} against {finding.baseline.title}, final reward: {difference}."
        case PlacementsAtChance():
            subjects = listed(subject.title for subject in finding.subjects)
            return (
                f"The mean task accuracy of {subjects} is not significantly above chance level ({100 * finding.chance:.1f}%): differences "
                "between models at chance level are not evidence about their layers."
            )
        case IdenticalAccuracy():
            subjects = listed(f"{subject.title} ({task})" for subject, task in finding.accuracies)
            return (
                f"All seeds of {subjects} have exactly the same accuracy, which is typical of models that give the same answer to every "
                "question; the interval over seeds then has zero width and understates the error."
            )
        case LimitedQuestions():
            return limited(finding)
        case SingleChainSeed():
            return NO_CLAIM
    return _reinforcement(finding)


def interruption(cause: Interruption) -> str:
    """Why a chain ended before its last step."""
    match cause.kind:
        case "pretraining":
            return f"pre-training {cause.status}"
        case "no-reward-model":
            return (
                f"{cause.step}: the baseline has no reward model for this seed, and all placements are scored with it"
            )
        case "divergence":
            return f"{cause.step} diverged at step {cause.optimizer_step:,}" + (
                f": {cause.reason}" if cause.reason else ""
            )
        case "error":
            return cause.reason


def _reinforcement(finding: Finding) -> str:
    """Sentences on rewards, and on chains that ended early."""
    match finding:
        case RewardHacking():
            trials = "; ".join(trial.label for trial in finding.trials)
            return f"The reward of {trials} {REWARD_HACKING}"
        case SharedJudge():
            return (
                f"All placements of a seed were scored by the same reward model, that of {finding.baseline.title}, because rewards of "
                "different reward models are not on the same scale. For the same reason, only paired differences are comparable across "
                "seeds."
            )
        case JudgesAtChance():
            judges = listed(
                f"seed {seed} ({100 * value:.1f} ± {100 * error:.1f}% correct)" for seed, value, error in finding.judges
            )
            return (
                f"The reward model of {judges} is not significantly above chance level on held-out pairs of chosen and rejected "
                "answers, so its rewards are not informative."
            )
        case StalledBefore():
            trials = "; ".join(trial.label for trial in finding.trials)
            return f"Stalled in pre-training, but trained in all later steps: {trials}."
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
