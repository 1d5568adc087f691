"""What an evaluation on tasks shows, in sentences."""

from __future__ import annotations

from mixln.evaluation.findings import LimitedQuestions, ModelAtChance, TruncatedQuestions, findings
from mixln.evaluation.results import Evaluation
from mixln.findings import Finding
from mixln.report.wording.phrases import listed


def notes(evaluation: Evaluation) -> tuple[str, ...]:
    """All sentences."""
    return tuple(map(sentence, findings(evaluation)))


def sentence(finding: Finding) -> str:
    """One finding in words."""
    match finding:
        case TruncatedQuestions():
            return (
                f"{finding.model}, {finding.task}: {finding.truncated:,} of {finding.questions:,} questions are longer than the context; "
                "lm-eval cuts off their beginning."
            )
        case LimitedQuestions():
            return limited(finding)
        case ModelAtChance():
            return f"{finding.model} is not significantly above chance level on {listed(finding.tasks)}."
    raise TypeError(f"no sentence for {finding!r}")


def limited(finding: LimitedQuestions) -> str:
    """That not all questions were asked."""
    return f"Only the first questions of each task were asked ({finding.option} {finding.limit:,}): do not compare with published scores."
