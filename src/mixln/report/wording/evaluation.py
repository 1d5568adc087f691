"""Sentences on the findings of an evaluation on tasks."""

from __future__ import annotations

from mixln.evaluation.findings import LimitedQuestions, ModelAtChance, TruncatedQuestions, findings
from mixln.evaluation.results import Evaluation
from mixln.findings import Finding
from mixln.report.wording.phrases import listed


def notes(evaluation: Evaluation) -> tuple[str, ...]:
    """One sentence per finding."""
    return tuple(map(sentence, findings(evaluation)))


def sentence(finding: Finding) -> str:
    """The sentence on one finding."""
    match finding:
        case TruncatedQuestions():
            return (
                f"{finding.model}, {finding.task}: {finding.truncated:,} of {finding.questions:,} questions are longer than the context; "
                "lm-eval truncates their beginning."
            )
        case LimitedQuestions():
            return limited(finding)
        case ModelAtChance():
            return f"{finding.model} is not significantly above chance level on {listed(finding.tasks)}."
    raise TypeError(f"no sentence for {finding!r}")


def limited(finding: LimitedQuestions) -> str:
    """The sentence that not all questions were evaluated."""
    return (
        f"Only the first {finding.limit:,} questions of each task were evaluated ({finding.option}): scores are not comparable with "
        "published ones."
    )
