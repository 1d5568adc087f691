"""What an evaluation found, as frozen records: `evaluation.json` is one :class:`Evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mixln.evaluation import former
from mixln.runs.provenance import ModelFacts, Provenance
from mixln.runs.schema import Schema


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """One metric of a task, as lm-eval gives it.

    :param name: for example `acc` or `acc_norm`.
    :param stderr: lm-eval's standard error; `None` where it has none.
    :param chance: its chance level; `None` where that has no meaning.
    :param values: of every question, in their order; the metric is Σ values / Σ weights. Empty where it is no such mean.
    :param weights: of every question; empty where all are 1.
    """

    name: str
    value: float
    stderr: float | None
    higher_is_better: bool
    chance: float | None = None
    values: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Score:
    """One task by one model.

    :param version: lm-eval's of the task.
    :param shots: examples in each prompt.
    :param questions: how many were asked.
    :param cut: questions that are longer than the model's context, whose beginning lm-eval leaves out.
    """

    task: str
    version: str
    shots: int
    questions: int
    cut: int
    metrics: tuple[TaskMetric, ...]

    def metric(self, name: str) -> TaskMetric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference of two models on the same questions.

    :param difference: the model's metric minus the baseline's.
    :param low: lower end of its 95% interval over questions, by the test that gives p.
    :param p: of the hypothesis of no difference: McNemar's exact test where every question is right or wrong, else Student's t.
    :param better: questions that the model alone answers rightly (or better).
    :param worse: those that the baseline alone does.
    """

    task: str
    metric: str
    model: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All tasks by one model.

    :param model: a short name that differs from those of the other models.
    :param subject: which model it is; `None` for a trial in its comparison.
    """

    model: str
    scores: tuple[Score, ...]
    subject: ModelFacts | None = None

    def score(self, task: str) -> Score | None:
        return next((score for score in self.scores if score.task == task), None)


@dataclass(frozen=True, kw_only=True)
class QuestionSources:
    """Where the questions of the tasks came from.

    :param package: tasks whose questions an installed package holds, `hub` those fetched as their task file says.
    :param lm_eval: version of lm-eval.
    """

    package: tuple[str, ...]
    hub: tuple[str, ...]
    lm_eval: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Several models on the same tasks.

    :param pairs: every later model against the first.
    :param question_limit: questions of each task that were asked; `None` for all.
    """

    settings: dict[str, Any]
    models: tuple[Scores, ...]
    pairs: tuple[Pair, ...]
    question_limit: int | None = None
    questions: QuestionSources | None = None
    provenance: Provenance = field(default_factory=Provenance)


EVALUATION = Schema(
    kind="evaluation", file="evaluation.json", record=Evaluation, upgrade=former.evaluation, computed=("findings",)
)
