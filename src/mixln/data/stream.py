"""Text that is read, tokenized and packed while the training goes on, dealt out to the processes that train and to their workers.

Every reader has its share of the documents: some of the files, or of each file every n-th document where there are fewer files
than readers. It takes each once an epoch, in an order that the seed and the epoch decide: the files are shuffled, and of
a file `BLOCK` documents at a time. Each sequence says where the next one begins, so that a training goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from mixln.data.parts import Parts
from mixln.data.text import encoded
from mixln.errors import DataError

BLOCK = 4096
"""Documents that are shuffled among themselves."""
POSITION = "position"
"""Name of the column that says where the next sequence begins."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a reader's next sequence begins.

    :param file: how many of its files it has read in this epoch; `block` how many blocks of the file it is at.
    :param document: place in the shuffled block.
    :param token: tokens of that document, with its end of text, that have been used.
    """

    epoch: int = 0
    file: int = 0
    block: int = 0
    document: int = 0
    token: int = 0

    def to_tensor(self, worker: int) -> Tensor:
        return torch.tensor([worker, self.epoch, self.file, self.block, self.document, self.token])

    @classmethod
    def from_list(cls, entries: list[int]) -> tuple[int, Position]:
        """The worker, and where it is."""
        worker, epoch, file, block, document, token = entries
        return worker, cls(epoch=epoch, file=file, block=block, document=document, token=token)


class Stream(IterableDataset[dict[str, Tensor]]):
    """Sequences without end: {input_ids (T), position (6)}.

    :param tokenizer: a fast one, with an end of text.
    :param length: T, tokens of a sequence.
    :param rank: which of the processes that train this is, `size` how many there are.
    :param positions: where the workers of this process go on, by their number; from the start if empty.
    """

    def __init__(
        self,
        source: Parts,
        tokenizer: Any,
        *,
        length: int,
        seed: int,
        rank: int,
        size: int,
        positions: dict[int, Position] | None = None,
    ) -> None:
        self.source, self.tokenizer = source, tokenizer
        self.length, self.seed, self.rank, self.size = length, seed, rank, size
        self.positions = dict(positions or {})

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        reader, readers = self.rank * workers + worker, self.size * workers
        rest = np.empty(0, dtype=np.int64)
        for ids, place in self._documents(reader, readers, self.positions.get(worker, Position())):
            used = place.token - len(rest)  # tokens of this document before the end of the last sequence
            rest = np.concatenate([rest, ids])
            while len(rest) >= self.length:
                sequence, rest = rest[: self.length], rest[self.length :]
                used += self.length
                position = Position(**{**vars(place), "token": used}).to_tensor(worker)
                yield {"input_ids": torch.from_numpy(sequence), POSITION: position}

    def _documents(self, reader: int, readers: int, begin: Position) -> Iterator[tuple[np.ndarray, Position]]:
        """The tokens of document after document, each with an end of text, from a position on, and where they stand."""
        at = begin
        while True:
            files, seen = self._files(reader, readers, at.epoch), at != Position(epoch=at.epoch)
            for number in range(at.file, len(files)):
                for block, texts in enumerate(self._blocks(files[number], reader, readers)):
                    seen = True
                    if block < at.block:
                        continue
                    order = np.random.default_rng([self.seed, at.epoch, files[number], block]).permutation(len(texts))
                    chosen = [texts[index] for index in order[at.document :]]
                    for step, ids in enumerate(encoded(chosen, self.tokenizer)):
                        token = at.token if step == 0 else 0
                        document = at.document + step
                        yield (
                            ids[token:],
                            Position(epoch=at.epoch, file=number, block=block, document=document, token=token),
                        )
                    at = Position(epoch=at.epoch, file=number, block=block + 1)
                at = Position(epoch=at.epoch, file=number + 1)
            if not seen:
                raise DataError(
                    f"data {self.source.description} has no documents for reader {reader + 1} of {readers}; "
                    "give more text, or start fewer processes"
                )
            at = Position(epoch=at.epoch + 1)

    def _files(self, reader: int, readers: int, epoch: int) -> list[int]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.source.files)).tolist()
        return order[reader::readers] if self._by_file(readers) else order

    def _by_file(self, readers: int) -> bool:
        return len(self.source.files) >= readers

    def _blocks(self, file: int, reader: int, readers: int) -> Iterator[list[str]]:
        texts = self.source.train(file)
        mine = texts if self._by_file(readers) else islice(texts, reader, None, readers)
        while block := list(islice(mine, BLOCK)):
            yield block
