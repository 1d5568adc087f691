"""Text that is read, tokenized and packed while the training goes on.

The order of the sequences follows from the data and the seed alone, neither from how many processes train nor from how many
workers tokenize for each. Every document is taken once an epoch: the files are shuffled, and of a file `BLOCK` documents at a time.
So that nobody need know how far the others are, each process packs the whole text and keeps its share of the sequences;
its workers share out the tokenizing, which takes forty times as long as the reading.
Each sequence says where the next ones begin, so that a training goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mixln.data.sharded_corpus import ShardedCorpus
from mixln.data.tokenizer import encoded
from mixln.errors import DataError

BLOCK = 4096
"""Documents that are shuffled among themselves."""
PARCEL = 32
"""Documents that a worker tokenizes at a time."""
AHEAD = 16
"""Parcels that each worker tokenizes before they are needed."""
POSITION = "position"
"""Name of the column that says where the next sequences begin."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a sequence begins.

    :param file: how many files have been read in this epoch; `block` how many blocks of the file.
    :param document: place in the shuffled block.
    :param token: tokens of that document, with its end of text, that have been used.
    """

    epoch: int = 0
    file: int = 0
    block: int = 0
    document: int = 0
    token: int = 0

    def to_tensor(self) -> Tensor:
        """Its five numbers."""
        return torch.tensor(astuple(self))

    @classmethod
    def from_tensor(cls, numbers: Tensor) -> Position:
        epoch, file, block, document, token = numbers.tolist()
        return cls(epoch=epoch, file=file, block=block, document=document, token=token)


START = Position()


class TokenStream(IterableDataset[dict[str, Tensor]]):
    """Sequences without end: {input_ids (T), position (5)}. Of `size` sequences in a row each process has one; their position
    is where the one after them begins, for all.

    :param tokenizer: a fast one, with an end of text.
    :param length: T, tokens of a sequence.
    :param rank: which of the processes that train this is, `size` how many there are.
    :param workers: processes that tokenize for this one; 0 for none.
    :param begin: where it goes on.
    """

    def __init__(
        self,
        source: ShardedCorpus,
        tokenizer: Any,
        *,
        length: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
        workers: int = 0,
        begin: Position = START,
    ) -> None:
        self.documents = _Documents(source, tokenizer, seed=seed, begin=begin)
        self.length, self.rank, self.size, self.workers = length, rank, size, workers

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        sequences = self._sequences()
        while True:
            together = list(islice(sequences, self.size))
            own, (_, position) = together[self.rank][0], together[-1]
            yield {"input_ids": torch.from_numpy(own), POSITION: position.to_tensor()}

    def _sequences(self) -> Iterator[tuple[np.ndarray, Position]]:
        """Every sequence, and where the next one begins."""
        rest, skipped = np.empty(0, dtype=np.int64), self.documents.begin.token
        for ids, place in self._tokenized():
            used = skipped - len(rest)  # tokens of this document before the end of the last sequence
            rest, skipped = np.concatenate([rest, ids[skipped:]]), 0
            while len(rest) >= self.length:
                sequence, rest = rest[: self.length], rest[self.length :]
                used += self.length
                yield sequence, replace(place, token=used)

    def _tokenized(self) -> Iterator[tuple[np.ndarray, Position]]:
        """The tokens of document after document, each with an end of text, and where they begin."""
        parcels = DataLoader(
            self.documents,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            generator=torch.Generator(),  # else it would draw from the one that dropout does
        )
        for parcel in parcels:
            if isinstance(parcel, DataError):
                raise parcel
            place, documents = parcel
            for step, ids in enumerate(documents):
                yield ids, replace(place, document=place.document + step)


class _Documents(IterableDataset[tuple[Position, list[np.ndarray]] | DataError]):
    """Tokenized documents without end, a parcel at a time with where its first one begins. Of n workers each has every n-th parcel,
    and torch's loader takes them in turn. A mistake in the data is handed on: raised in a worker it would become a traceback.

    :param begin: the first document; it is given whole.
    """

    def __init__(self, source: ShardedCorpus, tokenizer: Any, *, seed: int, begin: Position) -> None:
        self.source, self.tokenizer, self.seed, self.begin = source, tokenizer, seed, begin

    def __iter__(self) -> Iterator[tuple[Position, list[np.ndarray]] | DataError]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        parcels = islice(self._parcels(), worker, None, workers)
        while True:
            try:
                place, texts = next(parcels)
            except DataError as error:
                yield error
                return
            yield place, encoded(texts, self.tokenizer)

    def _parcels(self) -> Iterator[tuple[Position, list[str]]]:
        at = replace(self.begin, token=0)
        while True:
            files, seen = self._shuffled(len(self.source.files), at.epoch), False
            for number in range(at.file, len(files)):
                file = files[number]
                for block, texts in islice(enumerate(_blocks(self.source.train(file))), at.block, None):
                    order = self._shuffled(len(texts), at.epoch, file, block)
                    for document in range(at.document, len(texts), PARCEL):
                        place = Position(epoch=at.epoch, file=number, block=block, document=document)
                        yield place, [texts[index] for index in order[document : document + PARCEL]]
                    at, seen = Position(epoch=at.epoch), True
                at = Position(epoch=at.epoch)
            if not seen:
                raise DataError(f"data {self.source.description} has no documents to train on; give more text")
            at = Position(epoch=at.epoch + 1)

    def _shuffled(self, count: int, *place: int) -> list[int]:
        """The numbers below `count`, in an order that the seed and the place decide."""
        return np.random.default_rng([self.seed, *place]).permutation(count).tolist()


def _blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    while block := list(islice(texts, BLOCK)):
        yield block


def _unchanged(parcel: Any) -> Any:
    """Arrays stay arrays: they go through a pipe, and need no shared memory."""
    return parcel
