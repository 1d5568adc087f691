"""Examples to fine-tune on and preference pairs, from the commonsense questions, a file, or the hub: plain strings in the end.

completions   `prompt` and `completion`; also `instruction`, `output` and perhaps `input`; or `messages`, the last the completion
pairs         `prompt`, `chosen` and `rejected`; or conversations `chosen` and `rejected` that begin alike

A conversation is a list of {role, content}; it is written with the tokenizer's chat template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Literal

from mixln.data import commonsense, questions
from mixln.data.documents import path_of
from mixln.data.listing import printable
from mixln.data.rows import READERS, Placed, Row, no_column, read_rows, text_of
from mixln.data.settings import ExampleSettings
from mixln.errors import DataError, first_line
from mixln.quiet import quiet

Kind = Literal["completions", "pairs"]
HUB = {"completions": "zwhe99/commonsense_170k", "pairs": "trl-lib/ultrafeedback_binarized"}
"""What `commonsense` and `ultrafeedback` are on the hub."""
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""How a conversation is written for a tokenizer that has no template of its own."""
WRONG = 0
"""Seed of which wrong answer a pair has."""
HELD_OUT = 1 / 16
"""Share of the examples that no step learns from; more where that is too few to hold out."""
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "completions": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples in two parts, as rows of the columns in :data:`COLUMNS`.

    :param description: what they are and whose licence they have, in words.
    :param removed: how many were left out because an evaluation asks them.
    :param too_long: how many were left out because they do not fit the model's context.
    """

    kind: Kind
    description: str
    train: list[Row]
    held_out: list[Row]
    removed: int = 0
    too_long: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all examples, as hexadecimal text."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            for row in part:
                digest.update("\0".join(row[name] for name in COLUMNS[self.kind]).encode("utf-8") + b"\1")
            digest.update(b"\2")
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ContextBudget:
    """What an example must fit into.

    :param columns: that stand one after the other; with them the end of text, as one token more.
    :param tokens: as many as there may be.
    """

    tokenizer: Any
    columns: tuple[str, ...]
    tokens: int


def rooms(kind: Kind, tokenizer: Any, tokens: int) -> list[ContextBudget]:
    """The prompt with each of the answers must fit."""
    prompt, *others = COLUMNS[kind]
    return [ContextBudget(tokenizer=tokenizer, columns=(prompt, other), tokens=tokens) for other in others]


def examples(
    settings: ExampleSettings, kind: Kind, tokenizer: Any, fit: Sequence[ContextBudget], *, most: int | None = None
) -> Examples:
    """Reads the examples that `settings` names, leaves out those that are too long, and holds some out.

    The hash of its prompt decides where an example stands and whether it may be held out: what one step holds out, no other
    learns from, whatever of it fits there.

    :param tokenizer: of the model; it writes conversations.
    :param fit: every example that is used fits into all of these.
    :param most: examples to learn from that are needed.
    :raises DataError: if they cannot be read, a row is not as it must be, or too few are left.
    """
    description, rows, removed = _read(settings, kind, tokenizer)
    if not rows:
        raise DataError(f"data {settings.data} holds no examples; name another --data")
    numbered = sorted(((_number(row["prompt"]), row) for row in rows), key=lambda pair: pair[0])
    order = [row for _, row in numbered]
    reserved = sum(number < HELD_OUT for number, _ in numbered)
    wanted = min((count for count in (settings.examples, most) if count is not None), default=None)
    held_out, shorter = _fitting(order, fit, settings.held_out_examples)
    reserved = max(reserved, len(held_out) + shorter)
    while 0 < reserved < len(order) and order[reserved]["prompt"] == order[reserved - 1]["prompt"]:
        reserved += 1  # the same prompt stands on one side only
    train, short = _fitting(order[reserved:], fit, wanted)
    too_long = shorter + short
    if not train or len(held_out) < settings.held_out_examples:
        said = (
            f", for {too_long:,} are longer than the {fit[0].tokens:,} tokens that there is room for"
            if too_long
            else ""
        )
        raise DataError(
            f"data {settings.data}: of {len(rows):,} examples {len(train):,} are left to learn from and {len(held_out):,} of "
            f"{settings.held_out_examples:,} to hold out{said}; give more{' or shorter ones' if too_long else ''}, "
            "or a smaller --held-out-examples"
        )
    return Examples(
        kind=kind, description=description, train=train, held_out=held_out, removed=removed, too_long=too_long
    )


def _read(settings: ExampleSettings, kind: Kind, tokenizer: Any) -> tuple[str, list[Row], int]:
    if settings.data in ("commonsense", "ultrafeedback"):
        if settings.data == "commonsense" and questions.is_installed():
            return _commonsense(settings, kind)
        if (settings.data == "commonsense") != (kind == "completions"):
            remedy = f"run {questions.INSTALL}, or " if settings.data == "commonsense" else ""
            raise DataError(f"data {settings.data} has no {kind} on the hub; {remedy}name another --data")
        return _parsed(f"{HUB[kind]} (hub)", _hub(HUB[kind], settings.data), kind, tokenizer)
    path = path_of(settings.data)
    if path.exists() and not path.is_dir():
        return _parsed(f"{printable(path.name)} (local)", read_rows(path), kind, tokenizer)
    if path.exists() or path.suffix in (*READERS, ".txt", ".json", ".csv") or settings.data.startswith((".", "/", "~")):
        raise DataError(
            f"data {settings.data} {'is a folder' if path.exists() else 'does not exist'}; give a {' or '.join(READERS)} file, "
            "a hub data set, or commonsense"
        )
    return _parsed(f"{settings.data} (hub)", _hub(settings.data, settings.data), kind, tokenizer)


def _commonsense(settings: ExampleSettings, kind: Kind) -> tuple[str, list[Row], int]:
    sources = tuple(questions.TRAINING) if kind == "completions" else commonsense.PREFERENCES
    kept, removed = commonsense.training_questions(sources)
    what = f"{', '.join(sources)} ({settings.style} style, package {questions.PACKAGE})"
    written = {
        "pairs": lambda: commonsense.pairs(kept, settings.style, seed=WRONG),
        "completions": lambda: commonsense.completions(kept, settings.style),
    }
    return what, list(written[kind]()), removed.total


def _parsed(description: str, rows: Iterator[Placed], kind: Kind, tokenizer: Any) -> tuple[str, list[Row], int]:
    return description, [_row(kind, row, where, tokenizer) for where, row in rows], 0


def _hub(name: str, said: str) -> Iterator[Placed]:
    import datasets

    place, _, config = name.partition(":")
    try:
        with quiet():  # its client tells of every try
            rows: Any = datasets.load_dataset(place, config or None, split="train")
    except Exception as error:  # the hub client raises many kinds: no network, no such data set, no permission
        remedy = f", or run {questions.INSTALL}" if said == "commonsense" else ""
        raise DataError(
            f"data {said!r} is no local file, and the hub did not give {place}: {first_line(error)}; "
            f"check the name and the network{remedy}"
        ) from error
    for number, row in enumerate(rows):
        yield f"{name} row {number}", row


def _row(kind: Kind, row: Row, where: str, tokenizer: Any) -> Row:
    """One example as plain strings.

    :raises DataError: if a column is missing or holds something else; it names the first.
    """
    for columns, read in FORMS[kind].items():
        if all(column in row for column in columns):
            return read(row, where, tokenizer)
    forms = " or ".join(" + ".join(columns) for columns in FORMS[kind])
    first = next(column for column in next(iter(FORMS[kind])) if column not in row)
    raise DataError(no_column(first, where, row, f"; {kind} need {forms}"))


def _texts(columns: Mapping[str, str]) -> Callable[[Row, str, Any], Row]:
    """:param columns: of the example → of the row."""

    def read(row: Row, where: str, tokenizer: Any) -> Row:
        if any(isinstance(row[column], list) for column in columns.values()):
            return _talk(row, where, tokenizer, columns)
        return {name: text_of(row, column, where) for name, column in columns.items()}

    return read


def _instruction(row: Row, where: str, tokenizer: Any) -> Row:
    prompt = text_of(row, "instruction", where)
    if row.get("input"):
        prompt += f"\n\n{text_of(row, 'input', where)}"
    return {"prompt": f"{prompt}\n\n", "completion": text_of(row, "output", where)}


def _messages(row: Row, where: str, tokenizer: Any) -> Row:
    messages = _conversation(row, "messages", where)
    if len(messages) < 2:
        raise DataError(f"column 'messages' of data {where} must have a prompt and an answer, got one message")
    return _rendered(tokenizer, messages[:-1], {"completion": messages[-1:]}, where)


def _talk(row: Row, where: str, tokenizer: Any, columns: Mapping[str, str]) -> Row:
    prompt, *others = columns
    messages = _conversation(row, columns[prompt], where)
    return _rendered(tokenizer, messages, {name: _conversation(row, columns[name], where) for name in others}, where)


def _alike(row: Row, where: str, tokenizer: Any) -> Row:
    """Two conversations, whose common beginning is the prompt."""
    if isinstance(row["chosen"], str):
        raise DataError(no_column("prompt", where, row, "; pairs of texts need one"))
    chosen, rejected = (_conversation(row, name, where) for name in ("chosen", "rejected"))
    if chosen[0] != rejected[0] or min(len(chosen), len(rejected)) < 2:
        raise DataError(f"columns 'chosen' and 'rejected' of data {where} must begin with the same message, the prompt")
    common = min(alike(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    return _rendered(tokenizer, chosen[:common], {"chosen": chosen[common:], "rejected": rejected[common:]}, where)


FORMS: dict[Kind, dict[tuple[str, ...], Callable[[Row, str, Any], Row]]] = {
    "completions": {
        ("prompt", "completion"): _texts({"prompt": "prompt", "completion": "completion"}),
        ("instruction", "output"): _instruction,
        ("messages",): _messages,
    },
    "pairs": {
        ("prompt", "chosen", "rejected"): _texts({"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
        ("chosen", "rejected"): _alike,
    },
}
"""Columns that an example may have → how it is read."""


def _conversation(row: Row, column: str, where: str) -> list[dict[str, str]]:
    messages = row[column]
    good = isinstance(messages, list) and messages
    if not good or not all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in messages):
        raise DataError(f"column {column!r} of data {where} must be text or a list of messages with role and content")
    return [{"role": text_of(each, "role", where), "content": text_of(each, "content", where)} for each in messages]


def _rendered(tokenizer: Any, prompt: list[dict[str, str]], others: dict[str, list[dict[str, str]]], where: str) -> Row:
    """The prompt with the answer's beginning, and what each other list adds to it.

    :raises DataError: if the tokenizer's template cannot write it so.
    """
    template = tokenizer.chat_template or TEMPLATE
    try:
        begun = tokenizer.apply_chat_template(
            prompt, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        wholes = {
            name: tokenizer.apply_chat_template(prompt + messages, chat_template=template, tokenize=False)
            for name, messages in others.items()
        }
    except Exception as error:  # a template may raise what it likes
        raise DataError(
            f"data {where} cannot be written with the tokenizer's chat template: {first_line(error)}"
        ) from error
    if odd := [name for name, whole in wholes.items() if not whole.startswith(begun)]:
        raise DataError(
            f"data {where}: with the tokenizer's chat template the {odd[0]} does not go on where the prompt ends; "
            "give the texts of prompt and answer instead of messages"
        )
    answers = {name: whole.removeprefix(begun).rstrip() for name, whole in wholes.items()}
    return {"prompt": begun.removeprefix(tokenizer.bos_token or ""), **answers}  # the tokenizer puts its own in front


def alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many entries two sequences have in common at their beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def _number(prompt: str) -> float:
    """A number in [0, 1) that the prompt decides."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8")).digest()[:8], "big") / 2**64


def _fitting(rows: Sequence[Row], fit: Sequence[ContextBudget], wanted: int | None) -> tuple[list[Row], int]:
    """As many rows as are wanted that fit, and how many did not that came before the last of them."""
    kept: list[Row] = []
    too_long = 0
    source = iter(rows)
    while chunk := list(islice(source, 1024)):
        fits = [True] * len(chunk)
        for room in fit:
            joined = ["".join(row[name] for name in room.columns) for row in chunk]
            ids = room.tokenizer(joined, verbose=False)["input_ids"]
            fits = [good and len(each) < room.tokens for good, each in zip(fits, ids, strict=True)]
        for row, good in zip(chunk, fits, strict=True):
            if good:
                kept.append(row)
            else:
                too_long += 1
            if len(kept) == wanted:
                return kept, too_long
    return kept, too_long
