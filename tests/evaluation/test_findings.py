"""What a reader of scores must know, as data."""

from __future__ import annotations

from mixln.evaluation.findings import LimitedQuestions, ModelAtChance, TruncatedQuestions, findings
from mixln.evaluation.results import Evaluation, Score, Scores, TaskMetric


def score(task: str, accuracy: float, *, cut: int = 0, stderr: float | None = 0.05) -> Score:
    metric = TaskMetric(name="acc", value=accuracy, stderr=stderr, higher_is_better=True, chance=0.25)
    return Score(task=task, version="1", shots=0, questions=100, cut=cut, metrics=(metric,))


def test_nothing_to_say() -> None:
    models = (Scores(model="m", scores=(score("a", 0.5),)),)
    assert findings(Evaluation(settings={}, models=models, pairs=())) == ()


def test_truncated_and_limited_questions_and_chance_level() -> None:
    first = Scores(model="first", scores=(score("a", 0.26), score("b", 0.5, cut=7)))
    second = Scores(model="second", scores=(score("a", 0.34), score("b", 0.35)))
    assert findings(Evaluation(settings={}, models=(first, second), pairs=(), question_limit=100)) == (
        TruncatedQuestions(model="first", task="b", truncated=7, questions=100),
        LimitedQuestions(limit=100, option="--limit"),
        ModelAtChance(model="first", tasks=("a",)),
        ModelAtChance(model="second", tasks=("a",)),
    )


def test_without_a_standard_error_nothing_is_known_of_chance() -> None:
    models = (Scores(model="m", scores=(score("a", 0.25, stderr=None),)),)
    assert findings(Evaluation(settings={}, models=models, pairs=())) == ()
