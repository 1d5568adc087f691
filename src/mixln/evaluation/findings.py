"""What an evaluation on tasks shows beside its numbers, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixln.evaluation.results import Evaluation, Scores
from mixln.findings import Finding

Z = 1.96
"""Standard errors above chance level from which an accuracy is significantly above it, at 5%."""


@dataclass(frozen=True, kw_only=True)
class TruncatedQuestions(Finding):
    """Questions that are longer than the model's context, whose beginning lm-eval cuts off."""

    model: str
    task: str
    truncated: int
    questions: int


@dataclass(frozen=True, kw_only=True)
class LimitedQuestions(Finding):
    """Only the first questions of each task were asked.

    :param option: that limits them.
    """

    limit: int
    option: str


@dataclass(frozen=True, kw_only=True)
class ModelAtChance(Finding):
    """Tasks on which a model is not significantly above chance level."""

    model: str
    tasks: tuple[str, ...]


def findings(evaluation: Evaluation) -> tuple[Finding, ...]:
    """What a reader of the scores must know. It is computed from the numbers, and not stored."""
    limit = evaluation.question_limit
    return (
        *(found for model in evaluation.models for found in _truncated(model)),
        *([LimitedQuestions(limit=limit, option="--limit")] if limit is not None else []),
        *(found for model in evaluation.models for found in _at_chance(model)),
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
