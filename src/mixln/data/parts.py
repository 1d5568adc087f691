"""Text that may be larger than memory: its files one by one, each read from its beginning.

Of data without a split of its own for it, every k-th document of each file is held out, k = 1 / `held_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mixln.data.documents import CHARACTERS_PER_TOKEN, FILE_TYPES, REMEDY, hub_error, path_of
from mixln.data.rows import READERS, read_rows, text_of
from mixln.data.settings import CorpusSettings
from mixln.errors import DataError, first_line

LEAST_HELD_OUT, MOST_HELD_OUT = 100_000, 10_000_000
"""Tokens of held-out text, however little and however much there is to train on."""

Read = Callable[[], Iterator[str]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Documents in files.

    :param identity: changes when the data does.
    :param files: each gives its documents, always in the same order.
    :param validation: held-out documents, where the data has a split of its own.
    :param stride: else, of how many documents one is held out.
    """

    description: str
    identity: tuple[Any, ...]
    files: tuple[Read, ...]
    validation: Read | None
    stride: int

    def train(self, file: int) -> Iterator[str]:
        """The documents of a file to train on, without empty ones."""
        for index, text in enumerate(self.files[file]()):
            if text.strip() and not (self.validation is None and self._held_out(index)):
                yield text

    def held_out(self, tokens: int) -> list[str]:
        """Held-out documents, about so many tokens of them or all there are."""
        taken, characters = [], 0
        for text in self._all_held_out():
            taken.append(text)
            characters += len(text)
            if characters >= tokens * CHARACTERS_PER_TOKEN // 2:
                break
        if not taken:
            raise DataError(f"data {self.description} has no held-out document; give more text, or raise --held-out")
        return taken

    def _all_held_out(self) -> Iterator[str]:
        if self.validation is not None:
            yield from (text for text in self.validation() if text.strip())
            return
        for read in self.files:
            yield from (text for index, text in enumerate(read()) if text.strip() and self._held_out(index))

    def _held_out(self, index: int) -> bool:
        return index % self.stride == self.stride // 2


def parts(settings: CorpusSettings) -> Parts:
    """Finds the files that the settings name, without reading them.

    :raises DataError: if there are none.
    """
    stride = round(1 / settings.held_out)
    path = path_of(settings.data)
    if not path.exists():
        if (
            settings.data == "sotu"
            or Path(settings.data).suffix in FILE_TYPES
            or settings.data.startswith((".", "/", "~"))
        ):
            raise DataError(f"data {settings.data} is no file, folder or hub data set of many files; name one")
        return _hub(settings, stride)
    files = sorted(p for p in path.rglob("*") if p.suffix in FILE_TYPES) if path.is_dir() else [path]
    if not files or files[0].suffix not in FILE_TYPES:
        raise DataError(f"data {path} holds no {', '.join(FILE_TYPES)} file; name a folder with text, or a file")
    return Parts(
        description=f"{path.name} (local, {len(files)} files)",
        identity=tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
        files=tuple(partial(_read_file, file, settings.text_column) for file in files),
        validation=None,
        stride=stride,
    )


def _read_file(file: Path, column: str) -> Iterator[str]:
    if file.suffix in READERS:
        yield from (text_of(row, column, where, REMEDY) for where, row in read_rows(file, (column,)))
        return
    try:
        yield file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {file} cannot be read: {first_line(error)}") from error


def _read_rows(rows: Iterable[Any], name: str, column: str) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield text_of(row, column, f"{name} row {number}", REMEDY)


def _hub(settings: CorpusSettings, stride: int) -> Parts:
    import datasets

    name, _, config = settings.data.partition(":")
    try:
        splits: Any = datasets.load_dataset(name, config or None, streaming=True)
    except Exception as error:  # the hub client raises many kinds: no network, no such data set, no permission
        raise hub_error(settings.data, error) from error
    if "train" not in splits:
        raise DataError(f"hub data set {settings.data} has no split 'train'; it has: {', '.join(splits)}")
    train = splits["train"]

    def reader(rows: Any) -> Read:
        return partial(_read_rows, rows, settings.data, settings.text_column)

    count = train.num_shards
    return Parts(
        description=f"{settings.data} (hub, {count} files)",
        identity=(settings.data, count),
        files=tuple(reader(train.shard(count, index)) for index in range(count)),
        validation=reader(splits["validation"]) if "validation" in splits else None,
        stride=stride,
    )
