"""The sentences on an evaluation."""

from __future__ import annotations

import pytest

from mixln.evaluation.findings import LimitedQuestions, ModelAtChance, TruncatedQuestions
from mixln.findings import Finding
from mixln.report.wording.evaluation import sentence


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (
            TruncatedQuestions(model="m", task="boolq", truncated=7, questions=3270),
            "m, boolq: 7 of 3,270 questions are longer than the context; lm-eval truncates their beginning.",
        ),
        (
            LimitedQuestions(limit=1000, option="--limit"),
            "Only the first 1,000 questions of each task were evaluated (--limit): scores are not comparable with published ones.",
        ),
        (
            ModelAtChance(model="m", tasks=("boolq", "piqa")),
            "m is not significantly above chance level on boolq, piqa.",
        ),
    ],
)
def test_each_finding_has_its_sentence(finding: Finding, text: str) -> None:
    assert sentence(finding) == text
