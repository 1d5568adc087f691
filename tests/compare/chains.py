"""Chains written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mixln.compare.chain_settings import ChainSettings
from mixln.compare.chain_statistics import summarise_chain
from mixln.compare.results import ChainResult, Interruption, Summary
from mixln.evaluation.results import Score, Scores, TaskMetric
from mixln.evaluation.settings import TaskSettings
from mixln.runs.outcome import PostTrainingOutcome, ValueWithError
from mixln.runs.trials import Trial
from tests.compare.records import results, summary


def tuned(**after: float) -> PostTrainingOutcome:
    """A training whose figures were 1 before."""
    return PostTrainingOutcome(
        status="finished",
        reason="",
        step=1,
        examples=1,
        held_out=1,
        removed=0,
        too_long=0,
        before={name: ValueWithError(value=1.0) for name in after},
        after={name: ValueWithError(value=value) for name, value in after.items()},
        curves={},
        gradient_norms=(),
        seconds=0.0,
    )


def ended(placement: str, seed: int, accuracies: dict[str, float], **after: float) -> ChainResult:
    """A chain that got to its end."""
    scores = tuple(
        Score(
            task=task,
            version="1",
            shots=0,
            questions=10,
            cut=0,
            metrics=(TaskMetric(name="acc", value=value, stderr=0.1, higher_is_better=True, chance=0.25),),
        )
        for task, value in accuracies.items()
    )
    trial = Trial(placement=placement, init="normal", learning_rate=1e-3, seed=seed)
    return ChainResult(trial=trial, scores=Scores(model="", scores=scores), rlhf=tuned(**after))


def interrupted(placement: str, seed: int) -> ChainResult:
    """A trial that left no model."""
    return replace(
        ended(placement, seed, {}),
        scores=None,
        rlhf=None,
        status="stopped",
        interruption=Interruption(kind="pretraining", status="diverged"),
    )


def chained(every: Sequence[ChainResult], *, tasks: tuple[str, ...] = (), limit: int | None = None) -> Summary:
    """The comparison of Pre-LN and others that a chain belongs to; without tasks, its only step is `rlhf`."""
    placements = list(dict.fromkeys(result.trial.placement for result in every))
    seeds = len({result.trial.seed for result in every})
    base = summary([trial for name in placements for trial in results(name, [1.0] * seeds)])
    asked = ChainSettings(chain=("rlhf",))
    if tasks:
        asked = ChainSettings(chain=("evaluate", "rlhf"), evaluate=TaskSettings(tasks=tasks, limit=limit))
    found = summarise_chain(every, base.placements, asked, baseline=placements[0], settings={})
    return replace(base, chain=found)
