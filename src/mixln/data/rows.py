"""Rows of local files and of hub data sets, each with where it stands, so that a mistake in one can be found."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mixln.data.listing import check_regular
from mixln.errors import DataError, first_line

Row = dict[str, Any]
Placed = tuple[str, Row]
"""Where a row stands, in words, and the row."""
ROW = 2**24
"""Characters of a line of JSON, or of the texts of a row of a .parquet file, at most."""
RATIO, UNPACKED = 100, 2**26
"""A file may unpack to so many times its size, or to so many bytes if that is more. Text unpacks to 3 to 20 times its size."""
UNBROKEN = 2**22
"""Characters of a document without a space or a line break, at most: a tokenizer holds about 150 bytes for each."""
BATCH = 16
"""Rows of a .parquet file that are unpacked at once."""


def read_rows(file: Path, columns: Collection[str] = ()) -> Iterator[Placed]:
    """The rows of a .jsonl or .parquet file, or of JSON lines in a .gz.

    :param columns: those that will be looked at, where that is known: a wide file is then read faster.
    :raises DataError: if it is of another type, cannot be read, or a line is no JSON object; it names the line. Also if a row or
        all that the file unpacks to is too large.
    """
    if file.suffix not in READERS:
        raise DataError(f"data {file} has the type {file.suffix or 'none'!r}; readable are {', '.join(READERS)}")
    most = max(UNPACKED, RATIO * check_regular(file))
    try:
        yield from READERS[file.suffix](file, columns, most)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"data {file} cannot be read: {first_line(error)}") from error


def _jsonl(file: Path, columns: Collection[str], most: int) -> Iterator[Placed]:
    seen = 0
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(iter(partial(lines.readline, ROW + 1), ""), 1):
            seen += len(line)
            if len(line) > ROW:
                raise _too_large(f"{file} line {number}", ROW)
            _check_unpacked(file, seen, most)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg.removesuffix(" at") if isinstance(error, json.JSONDecodeError) else first_line(error)
                raise DataError(f"data {file} line {number} is not JSON: {reason}; mend or remove that line") from error
            if not isinstance(row, dict):
                raise DataError(
                    f"data {file} line {number} must be a JSON object, got {type(row).__name__}; mend or remove it"
                )
            yield f"{file} line {number}", row


def _parquet(file: Path, columns: Collection[str], most: int) -> Iterator[Placed]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file) as table:
            groups = range(table.num_row_groups)
            _check_unpacked(file, sum(table.metadata.row_group(group).total_byte_size for group in groups), most)
            number = seen = 0
            whole = not set(columns) <= set(
                table.schema_arrow.names
            )  # so that what is said of the missing one lists all
            for batch in table.iter_batches(BATCH, columns=None if whole or not columns else list(columns)):
                # A dictionary holds a value once, and each of its rows would get a copy: row by row where values are large.
                step = len(batch) if batch.nbytes <= ROW // BATCH else 1
                for row in (
                    row for start in range(0, len(batch), step) for row in batch.slice(start, step).to_pylist()
                ):
                    size = _size(row)
                    seen += size
                    if size > ROW:
                        raise _too_large(f"{file} row {number}", ROW)
                    _check_unpacked(file, seen, most)
                    yield f"{file} row {number}", row
                    number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"data {file} cannot be read as parquet: {first_line(error)}") from error


def _size(value: Any) -> int:
    """Characters and bytes of the texts in a row; of everything else, one an entry."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 1


def _too_large(where: str, most: int) -> DataError:
    return DataError(
        f"data {where} has more than {most:,} characters; split it into several documents, or leave it out"
    )


def _check_unpacked(file: Path, seen: int, most: int) -> None:
    if seen > most:
        raise DataError(
            f"data {file} unpacks to more than {most:,} bytes, {RATIO} times its size or {UNPACKED:,}; "
            "give it unpacked, or split it"
        )


READERS: dict[str, Callable[[Path, Collection[str], int], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".gz": _jsonl,
    ".parquet": _parquet,
}


def check_unbroken(text: str, where: str) -> None:
    """:raises DataError: if a document has a stretch without a space or a line break that no tokenizer should be given."""
    for start in range(0, len(text) - UNBROKEN + 1, UNBROKEN):
        if len(text[start : start + UNBROKEN].split(None, 1)) < 2:
            raise DataError(
                f"data {where}: the {UNBROKEN:,} characters after the first {start:,} are one word at most; break them with "
                "spaces or line breaks, or leave them out"
            )


def text_of(row: Row, column: str, where: str, remedy: str = "") -> str:
    """The text in a column of a row.

    :raises DataError: if the column is missing, is no text, is not Unicode, or has too long a word.
    """
    if column not in row:
        raise DataError(no_column(column, where, row, remedy))
    if not isinstance(row[column], str):
        raise DataError(f"column {column!r} of data {where} must be text, got {type(row[column]).__name__}")
    try:
        row[column].encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"column {column!r} of data {where} is not Unicode text: {error.reason}; mend or remove it"
        ) from error
    check_unbroken(row[column], where)
    return row[column]


def no_column(column: str, where: str, known: Iterable[str], remedy: str = "") -> str:
    """The message for a column that is missing."""
    return f"data {where} has no column {column!r}; it has: {', '.join(known) or 'none'}{remedy}"
