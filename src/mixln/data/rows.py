"""Reads rows of local files, each with its location for error messages, and limits their size."""

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
"""(location of a row, for example `data.jsonl line 3`; the row)."""
ROW = 2**24
"""Largest number of characters of a line of JSON, or of the texts in a row of a .parquet file."""
RATIO, UNPACKED = 100, 2**26
"""A file may unpack to `RATIO` times its size, and in any case to `UNPACKED` bytes (64 MiB). Text unpacks to 3 to 20 times its size."""
UNBROKEN = 2**22
"""Largest number of characters without a space or line break: a tokenizer uses about 150 bytes of memory for each."""
BATCH = 16
"""Rows of a .parquet file that are unpacked at a time."""


def read_rows(file: Path, columns: Collection[str] = ()) -> Iterator[Placed]:
    """The rows of a .jsonl or .parquet file, or of JSON lines in a .gz.

    :param columns: columns that are needed, by default all; a wide .parquet file is then read faster.
    :raises DataError: if the file is of another type or cannot be read, a line is not a JSON object, or a row or the unpacked file
        is too large.
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
                raise DataError(
                    f"data {file} line {number} is not JSON: {reason}; correct or remove that line"
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"data {file} line {number} must be a JSON object, got {type(row).__name__}; correct or remove it"
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
            # If one is missing, all columns are read, because the error message lists them.
            known = set(columns) <= set(table.schema_arrow.names)
            for batch in table.iter_batches(BATCH, columns=list(columns) if known and columns else None):
                # A dictionary-encoded value is stored once but copied for each row, so large values are converted row by row.
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
    """Total length of the texts and bytes in a row; every other value counts as one."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 1


def _too_large(where: str, most: int) -> DataError:
    return DataError(f"data {where} has more than {most:,} characters; split it into several documents, or remove it")


def _check_unpacked(file: Path, seen: int, most: int) -> None:
    if seen > most:
        raise DataError(
            f"data {file} unpacks to more than {most:,} bytes, the larger of {RATIO} times its size and {UNPACKED:,}; "
            "unpack it first, or split it"
        )


READERS: dict[str, Callable[[Path, Collection[str], int], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".gz": _jsonl,
    ".parquet": _parquet,
}


def check_unbroken(text: str, where: str) -> None:
    """:raises DataError: if a document has :data:`UNBROKEN` characters without a space or line break, too many for a tokenizer."""
    for start in range(0, len(text) - UNBROKEN + 1, UNBROKEN):
        if len(text[start : start + UNBROKEN].split(None, 1)) < 2:
            raise DataError(
                f"data {where}: the {UNBROKEN:,} characters after the first {start:,} contain at most one word; insert spaces or "
                "line breaks, or remove them"
            )


def text_of(row: Row, column: str, where: str, remedy: str = "") -> str:
    """The text in a column of a row.

    :raises DataError: if the column is missing, is not text, is not valid Unicode, or has too long a word.
    """
    if column not in row:
        raise DataError(no_column(column, where, row, remedy))
    if not isinstance(row[column], str):
        raise DataError(f"column {column!r} of data {where} must be text, got {type(row[column]).__name__}")
    try:
        row[column].encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"column {column!r} of data {where} is not Unicode text: {error.reason}; correct or remove it"
        ) from error
    check_unbroken(row[column], where)
    return row[column]


def no_column(column: str, where: str, known: Iterable[str], remedy: str = "") -> str:
    """Error message for a missing column."""
    return f"data {where} has no column {column!r}; it has: {', '.join(known) or 'none'}{remedy}"
