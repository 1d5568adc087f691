"""Findings of an evaluation on tasks, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixln.evaluation.results import Evaluation, Scores
from mixln.findings import Finding

Z = 1.96
"""Standard errors by which an accuracy must exceed chance level to be significant at the 5% level (two-sided, normal)."""


@dataclass(frozen=True, kw_only=True)
class TruncatedQuestions(Finding):
    """Questions longer than the model's context, of which lm-eval drops the beginning."""

    model: str
    task: str
    truncated: int
    questions: int


@dataclass(frozen=True, kw_only=True)
class LimitedQuestions(Finding):
    """Only the first questions of each task were used.

    :param option: command-line option that sets the limit.
    """

    limit: int
    option: str


@dataclass(frozen=True, kw_only=True)
class ModelAtChance(Finding):
    """Tasks on which a model is not significantly above chance level."""

    model: str
    tasks: tuple[str, ...]


def findings(evaluation: Evaluation) -> tuple[Finding, ...]:
    """The caveats of an evaluation, computed from its numbers and not stored."""
    limit = evaluation.question_limit
    return (
        *(finding for model in evaluation.models for finding in _truncated(model)),
        *([LimitedQuestions(limit=limit, option="--limit")] if limit is not None else []),
        *(finding for model in evaluation.models for finding in _at_chance(model)),
    )


def _truncated(model: Scores) -> Iterator[Finding]:
    for score in model.scores:
        if score.cut:
            yield TruncatedQuestions(model=model.model, task=score.task, truncated=score.cut, questions=score.questions)


def _at_chance(model: Scores) -> Iterator[Finding]:
    tasks = tuple(
        score.task
        for score in model.scores
        for metric in score.metrics[:1]
        if metric.chance is not None and metric.stderr and metric.value - metric.chance < Z * metric.stderr
    )
    if tasks:
        yield ModelAtChance(model=model.model, tasks=tasks)
