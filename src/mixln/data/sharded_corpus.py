"""Text that may be larger than memory, read sequentially file by file.

If the data has no validation split, a share s of the documents is held out: document i of file f if an integer lies in
[i·s + f·φ, (i+1)·s + f·φ), where φ = (√5 − 1)/2. Held-out documents are thus evenly spaced within a file, and across files if each
has few documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from mixln.data.documents import (
    CHARACTERS_PER_TOKEN,
    FILE_TYPES,
    files_of,
    hub_splits,
    path_of,
    texts_of_file,
    texts_of_rows,
)
from mixln.data.listing import printable
from mixln.data.settings import CorpusSettings
from mixln.data.windows import GOLDEN
from mixln.errors import DataError

LEAST_HELD_OUT, MOST_HELD_OUT = 100_000, 10_000_000
"""Bounds for the held-out text, tokens, whatever the size of the training text."""

Read = Callable[[], Iterator[str]]


@dataclass(frozen=True, kw_only=True)
class ShardedCorpus:
    """Documents in several files.

    :param identity: JSON values that change when the data does.
    :param files: functions that iterate over the documents of one file each, always in the same order.
    :param validation: the same for the validation split, if the data has one.
    :param share: otherwise the share of the documents that is held out.
    """

    description: str
    identity: tuple[Any, ...]
    files: tuple[Read, ...]
    validation: Read | None
    share: float

    def train(self, file: int) -> Iterator[str]:
        """The training documents of a file, without empty ones."""
        for index, text in enumerate(self.files[file]()):
            if text.strip() and not (self.validation is None and self._held_out(file, index)):
                yield text

    def held_out(self, tokens: int) -> list[str]:
        """Held-out documents with about `tokens` tokens, or all of them."""
        taken, characters = [], 0
        for text in self._all_held_out():
            taken.append(text)
            characters += len(text)
            # Half of the upper bound: about 4 characters per token, the average for English.
            if characters >= tokens * CHARACTERS_PER_TOKEN // 2:
                break
        if not taken:
            raise DataError(f"data {self.description} has no held-out document; give more text or a larger --held-out")
        return taken

    def _all_held_out(self) -> Iterator[str]:
        if self.validation is not None:
            yield from (text for text in self.validation() if text.strip())
            return
        for file, read in enumerate(self.files):
            yield from (text for index, text in enumerate(read()) if text.strip() and self._held_out(file, index))

    def _held_out(self, file: int, index: int) -> bool:
        begin, end = (ceil(number * self.share + file * GOLDEN) for number in (index, index + 1))
        return begin < end


def sharded_corpus(settings: CorpusSettings) -> ShardedCorpus:
    """Lists the files that the settings name, without reading them.

    :raises DataError: if there are none.
    """
    path = path_of(settings.data)
    if not path.exists():
        if (
            settings.data == "sotu"
            or Path(settings.data).suffix in FILE_TYPES
            or settings.data.startswith((".", "/", "~"))
        ):
            raise DataError(f"data {settings.data} is not a file, a folder or a hub data set; name one")
        return _hub(settings)
    files = files_of(path)
    return ShardedCorpus(
        description=f"{printable(path.name)} (local, {len(files)} files)",
        identity=tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
        files=tuple(partial(texts_of_file, file, settings.text_column) for file in files),
        validation=None,
        share=settings.held_out,
    )


def _hub(settings: CorpusSettings) -> ShardedCorpus:
    splits, commit = hub_splits(settings.data)
    train = splits["train"]

    def reader(rows: Any) -> Read:
        return partial(texts_of_rows, rows, settings.data, settings.text_column)

    count = train.num_shards
    return ShardedCorpus(
        description=f"{settings.data} (hub, {count} files)",
        identity=(settings.data, count, commit),
        files=tuple(reader(train.shard(count, index)) for index in range(count)),
        validation=reader(splits["validation"]) if "validation" in splits else None,
        share=settings.held_out,
    )
