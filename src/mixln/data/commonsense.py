"""Commonsense questions as training examples: the composition of Commonsense-170K, and preference pairs.

Commonsense-170K (LLM-Adapters, arXiv:2304.01933) combines the training sets of eight tasks, about 170,000 examples. The package has
147,580 of them, because its WinoGrande is smaller. Two formats:

instruction   as in Commonsense-170K: the prompt lists the choices, and the completion is `the correct answer is answer2`
cloze         as in lm-eval: the prompt is the question, and the completion is the text of the right choice
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mixln.data import questions
from mixln.data.questions import Question

Style = Literal["instruction", "cloze"]
PREFERENCES = ("hellaswag", "openbookqa", "piqa", "social_iqa")
"""Data sets whose wrong choices are wrong answers to the same prompt in either style."""


@dataclass(frozen=True, kw_only=True)
class Decontamination:
    """Training questions that were removed because an evaluation uses them.

    :param by_source: data set → number of questions with the text of an evaluation question.
    """

    by_source: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_source.values())


@dataclass(frozen=True, kw_only=True)
class _QuestionFormat:
    """Format of a data set.

    :param lead: beginning of the instruction.
    :param cloze: (question, choice) → prompt and completion.
    :param noun: noun for the choices: `answer` for answer1, answer2; `None` if the choices are true and false.
    """

    lead: str
    cloze: Callable[[Question, int], tuple[str, str]]
    noun: str | None = None

    def names(self, question: Question) -> list[str]:
        """Names of the choices in the completion."""
        if self.noun is None:
            return ["true" if choice == "yes" else "false" for choice in question.choices]
        return [f"{self.noun}{number}" for number in range(1, len(question.choices) + 1)]


def _asked(question: Question, choice: int) -> tuple[str, str]:
    return f"Question: {question.text}\nAnswer:", f" {question.choices[choice]}"


def _continued(question: Question, choice: int) -> tuple[str, str]:
    return question.text, f" {question.choices[choice]}"


def _situated(question: Question, choice: int) -> tuple[str, str]:
    return f"Q: {question.context} {question.text}\nA:", f" {question.choices[choice]}"


def _read(question: Question, choice: int) -> tuple[str, str]:
    return f"{question.context}\nQuestion: {question.text}\nAnswer:", f" {question.choices[choice]}"


def _filled(question: Question, choice: int) -> tuple[str, str]:
    before, _, after = question.text.partition("_")
    return f"{before}{question.choices[choice]}", f" {after.strip()}"


ANSWER = _QuestionFormat(lead="Please choose the correct answer to the question: ", noun="answer", cloze=_asked)
WORDINGS: dict[str, _QuestionFormat] = {
    "arc_challenge": ANSWER,
    "arc_easy": ANSWER,
    "boolq": _QuestionFormat(lead="Please answer the following question with true or false, question: ", cloze=_read),
    "hellaswag": _QuestionFormat(
        lead="Please choose the correct ending to complete the given sentence: ", noun="ending", cloze=_continued
    ),
    "openbookqa": _QuestionFormat(lead=ANSWER.lead, noun="answer", cloze=_continued),
    "piqa": _QuestionFormat(lead="Please choose the correct solution to the question: ", noun="solution", cloze=_asked),
    "social_iqa": _QuestionFormat(lead=ANSWER.lead, noun="answer", cloze=_situated),
    "winogrande": _QuestionFormat(
        lead="Please choose the correct answer to fill in the blank to complete the given sentence: ",
        noun="option",
        cloze=_filled,
    ),
}


def written(question: Question, choice: int, style: Style) -> tuple[str, str]:
    """Prompt and completion for one choice of a question.

    In the instruction style, BoolQ has no passage and the choices true and false, as in Commonsense-170K.
    """
    wording = WORDINGS[question.source]
    if style == "cloze":
        return wording.cloze(question, choice)
    names = wording.names(question)
    if wording.noun is None:
        body = question.text
    else:
        pairs = zip(names, question.choices, strict=True)
        listed = " ".join(f"{name.capitalize()}: {text}" for name, text in pairs)
        body = f"{question.context} {question.text}".strip() + f"\n\n{listed}"
    return f"{wording.lead}{body}\n\nAnswer format: {'/'.join(names)}\n\n", f"the correct answer is {names[choice]}"


@cache
def training_questions(
    sources: tuple[str, ...] = tuple(questions.TRAINING),
) -> tuple[tuple[Question, ...], Decontamination]:
    """Training questions of these data sets, without those that an evaluation uses, and the number removed.

    Texts are compared without case, punctuation, spaces, mark-up in brackets, and passages.

    :raises DataError: if the package is not installed.
    """
    asked = {_bare(text) for text in questions.evaluation_texts()}
    kept: list[Question] = []
    removed: dict[str, int] = {}
    for source in sources:
        available = list(questions.training(source))
        clean = [question for question in available if _bare(_text(question)) not in asked]
        removed[source] = len(available) - len(clean)
        kept += clean
    return tuple(kept), Decontamination(by_source=removed)


def completions(chosen: Sequence[Question], style: Style) -> list[dict[str, str]]:
    """Rows of `prompt` and the right `completion`."""
    rows = (written(question, question.answer, style) for question in chosen)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows]


def pairs(chosen: Sequence[Question], style: Style, *, seed: int) -> list[dict[str, str]]:
    """Rows of `prompt`, `chosen` (the right answer) and `rejected` (a random wrong one)."""
    draw, rows = random.Random(seed), []
    for question in chosen:
        wrong = draw.choice([index for index in range(len(question.choices)) if index != question.answer])
        prompt, right = written(question, question.answer, style)
        rows.append({"prompt": prompt, "chosen": right, "rejected": written(question, wrong, style)[1]})
    return rows


def _text(question: Question) -> str:
    return f"{question.context} {question.text}" if question.source == "social_iqa" else question.text


def _bare(text: str) -> str:
    return re.sub(r"\[.*?\]|\W|_", "", text).lower()
