"""Rows of local files and of hub data sets, each with where it stands, so that a mistake in one can be found."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from mixln.errors import DataError, first_line

Row = dict[str, Any]
Placed = tuple[str, Row]
"""Where a row stands, in words, and the row."""


def read_rows(file: Path, columns: Collection[str] = ()) -> Iterator[Placed]:
    """The rows of a .jsonl or .parquet file, or of JSON lines in a .gz.

    :param columns: those that will be looked at, where that is known: a wide file is then read faster.
    :raises DataError: if it is of another type, cannot be read, or a line is no JSON object; it names the line.
    """
    if file.suffix not in READERS:
        raise DataError(f"data {file} has the type {file.suffix or 'none'!r}; readable are {', '.join(READERS)}")
    try:
        yield from READERS[file.suffix](file, columns)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"data {file} cannot be read: {first_line(error)}") from error


def _jsonl(file: Path, columns: Collection[str]) -> Iterator[Placed]:
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
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


def _parquet(file: Path, columns: Collection[str]) -> Iterator[Placed]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(file) as table:
            number = 0
            whole = not set(columns) <= set(
                table.schema_arrow.names
            )  # so that what is said of the missing one lists all
            for batch in table.iter_batches(columns=None if whole or not columns else list(columns)):
                for row in batch.to_pylist():
                    yield f"{file} row {number}", row
                    number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"data {file} cannot be read as parquet: {first_line(error)}") from error


READERS: dict[str, Callable[[Path, Collection[str]], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".gz": _jsonl,
    ".parquet": _parquet,
}


def text_of(row: Row, column: str, where: str, remedy: str = "") -> str:
    """The text in a column of a row.

    :raises DataError: if the column is missing, is no text, or is not Unicode.
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
    return row[column]


def no_column(column: str, where: str, known: Iterable[str], remedy: str = "") -> str:
    """The message for a column that is missing."""
    return f"data {where} has no column {column!r}; it has: {', '.join(known) or 'none'}{remedy}"
