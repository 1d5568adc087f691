"""Fine-tuning examples and preference pairs, from the commonsense questions, a file, or the hub, converted to plain strings.

completions   `prompt` and `completion`; or `instruction`, `output` and optionally `input`; or `messages`, the last being the completion
pairs         `prompt`, `chosen` and `rejected`; or conversations `chosen` and `rejected` with a common beginning, the prompt

A conversation is a list of {role, content}; it is formatted with the tokenizer's chat template.
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
"""Kind → hub data set behind `commonsense` and `ultrafeedback`."""
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""Chat template for tokenizers without one."""
WRONG = 0
"""Seed for choosing the rejected answers."""
HELD_OUT = 1 / 16
"""Share of the examples reserved for evaluation in every stage of post-training; more if it contains too few examples."""
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "completions": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training and held-out examples, as rows with the columns in :data:`COLUMNS`.

    :param description: name and licence of the examples, for reports.
    :param removed: number of examples omitted because an evaluation uses them.
    :param too_long: number of examples omitted because they do not fit the model's context.
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
    """A context into which an example must fit.

    :param columns: columns that are concatenated, followed by an end of text (one token).
    :param tokens: largest number of tokens.
    """

    tokenizer: Any
    columns: tuple[str, ...]
    tokens: int


def rooms(kind: Kind, tokenizer: Any, tokens: int) -> list[ContextBudget]:
    """Budgets for the prompt with each of the answers."""
    prompt, *others = COLUMNS[kind]
    return [ContextBudget(tokenizer=tokenizer, columns=(prompt, other), tokens=tokens) for other in others]


def examples(
    settings: ExampleSettings, kind: Kind, tokenizer: Any, fit: Sequence[ContextBudget], *, most: int | None = None
) -> Examples:
    """Reads the examples that `settings` names, skips those that are too long, and holds some out.

    The hash of the prompt determines an example's place in the order and whether it may be held out. An example held out in one stage
    of post-training is therefore not trained on in another, even if the context sizes differ.

    :param tokenizer: the model's, to format conversations.
    :param fit: budgets that every example must fit.
    :param most: largest number of training examples needed.
    :raises DataError: if they cannot be read, a row is invalid, or too few are left.
    """
    description, rows, removed = _read(settings, kind, tokenizer)
    if not rows:
        raise DataError(f"data {settings.data} has no examples; name another --data")
    numbered = sorted(((_number(row["prompt"]), row) for row in rows), key=lambda pair: pair[0])
    order = [row for _, row in numbered]
    reserved = sum(number < HELD_OUT for number, _ in numbered)
    wanted = min((count for count in (settings.examples, most) if count is not None), default=None)
    held_out, shorter = _fitting(order, fit, settings.held_out_examples)
    reserved = max(reserved, len(held_out) + shorter)
    while 0 < reserved < len(order) and order[reserved]["prompt"] == order[reserved - 1]["prompt"]:
        reserved += 1  # examples with the same prompt must not be split between training and evaluation
    train, short = _fitting(order[reserved:], fit, wanted)
    too_long = shorter + short
    if not train or len(held_out) < settings.held_out_examples:
        reason = f", because {too_long:,} are longer than {fit[0].tokens:,} tokens" if too_long else ""
        raise DataError(
            f"data {settings.data}: {len(rows):,} examples leave {len(train):,} for training and {len(held_out):,} of "
            f"{settings.held_out_examples:,} for evaluation{reason}; give more{' or shorter ones' if too_long else ''}, "
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
            raise DataError(f"data {settings.data} has no {kind} on the hub; {remedy}choose another --data")
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
    description = f"{', '.join(sources)} ({settings.style} style, package {questions.PACKAGE})"
    written = {
        "pairs": lambda: commonsense.pairs(kept, settings.style, seed=WRONG),
        "completions": lambda: commonsense.completions(kept, settings.style),
    }
    return description, list(written[kind]()), removed.total


def _parsed(description: str, rows: Iterator[Placed], kind: Kind, tokenizer: Any) -> tuple[str, list[Row], int]:
    return description, [_row(kind, row, where, tokenizer) for where, row in rows], 0


def _hub(name: str, data: str) -> Iterator[Placed]:
    """:param data: the data set as the user named it."""
    import datasets

    place, _, config = name.partition(":")
    try:
        with quiet():  # the hub client logs every retry
            rows: Any = datasets.load_dataset(place, config or None, split="train")
    except Exception as error:  # the hub client raises many types: no network, no such data set, no permission
        remedy = f", or run {questions.INSTALL}" if data == "commonsense" else ""
        raise DataError(
            f"data {data!r} is not a local file, and {place} cannot be loaded from the hub: {first_line(error)}; "
            f"check the name and the network{remedy}"
        ) from error
    for number, row in enumerate(rows):
        yield f"{name} row {number}", row


def _row(kind: Kind, row: Row, where: str, tokenizer: Any) -> Row:
    """One example as plain strings.

    :raises DataError: if a column is missing or has another type.
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
    """Reads two conversations with a common beginning, the prompt."""
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
"""Kind → columns of a row → function that reads the row; the first match is used."""


def _conversation(row: Row, column: str, where: str) -> list[dict[str, str]]:
    messages = row[column]
    valid = isinstance(messages, list) and messages
    if not valid or not all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in messages):
        raise DataError(f"column {column!r} of data {where} must be text or a list of messages with role and content")
    return [{"role": text_of(item, "role", where), "content": text_of(item, "content", where)} for item in messages]


def _rendered(tokenizer: Any, prompt: list[dict[str, str]], others: dict[str, list[dict[str, str]]], where: str) -> Row:
    """The formatted prompt, up to the beginning of the answer, and each answer as the rest of the formatted conversation.

    :raises DataError: if the tokenizer's template fails, or formats the prompt differently when an answer follows.
    """
    template = tokenizer.chat_template or TEMPLATE
    try:
        begun = tokenizer.apply_chat_template(
            prompt, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        complete = {
            name: tokenizer.apply_chat_template(prompt + messages, chat_template=template, tokenize=False)
            for name, messages in others.items()
        }
    except Exception as error:  # a template may raise any type
        raise DataError(
            f"data {where} cannot be formatted with the tokenizer's chat template: {first_line(error)}"
        ) from error
    if odd := [name for name, text in complete.items() if not text.startswith(begun)]:
        raise DataError(
            f"data {where}: with the tokenizer's chat template, prompt and {odd[0]} together do not begin with the prompt; "
            "give prompt and answer as texts instead of messages"
        )
    answers = {name: text.removeprefix(begun).rstrip() for name, text in complete.items()}
    # Without the template's beginning-of-text token: the tokenizer adds its own.
    return {"prompt": begun.removeprefix(tokenizer.bos_token or ""), **answers}


def alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of the common beginning of two sequences."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def _number(prompt: str) -> float:
    """Maps a prompt to a number in [0, 1) by its hash, uniformly."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8")).digest()[:8], "big") / 2**64


def _fitting(rows: Sequence[Row], fit: Sequence[ContextBudget], wanted: int | None) -> tuple[list[Row], int]:
    """The first `wanted` rows that fit, and the number of rows before the last of them that do not."""
    kept: list[Row] = []
    too_long = 0
    source = iter(rows)
    while chunk := list(islice(source, 1024)):
        fits = [True] * len(chunk)
        for room in fit:
            joined = ["".join(row[name] for name in room.columns) for row in chunk]
            ids = room.tokenizer(joined, verbose=False)["input_ids"]
            # Less than, not equal: the end of text needs one token.
            fits = [fit_so_far and len(row) < room.tokens for fit_so_far, row in zip(fits, ids, strict=True)]
        for row, fits_all in zip(chunk, fits, strict=True):
            if fits_all:
                kept.append(row)
            else:
                too_long += 1
            if len(kept) == wanted:
                return kept, too_long
    return kept, too_long
