"""Reads, tokenizes and packs text during training.

The order of the sequences depends only on the data and the seed, not on the number of training processes or of workers that tokenize
for each. Every document is used once per epoch: the order of the files is shuffled, and blocks of `BLOCK` documents within a file.
To avoid communication, each process packs the complete text and keeps its share of the sequences; its workers share the tokenizing,
which takes forty times as long as reading. Each sequence carries the position of the next one, from which training can resume.
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
"""Documents in a block, which is read into memory and shuffled."""
PARCEL = 32
"""Documents that a worker tokenizes at a time."""
AHEAD = 16
"""Parcels that each worker tokenizes in advance."""
POSITION = "position"
"""Column with the position of the next sequence."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Position at which a sequence begins.

    :param file: number of files read in this epoch; `block` of blocks read of the current file.
    :param document: index in the shuffled block.
    :param token: number of tokens used of that document, including its end of text.
    """

    epoch: int = 0
    file: int = 0
    block: int = 0
    document: int = 0
    token: int = 0

    def to_tensor(self) -> Tensor:
        """The five numbers as an int64 tensor (5)."""
        return torch.tensor(astuple(self))

    @classmethod
    def from_tensor(cls, numbers: Tensor) -> Position:
        epoch, file, block, document, token = numbers.tolist()
        return cls(epoch=epoch, file=file, block=block, document=document, token=token)


START = Position()


class TokenStream(IterableDataset[dict[str, Tensor]]):
    """Endless stream of sequences {input_ids (T), position (5)}.

    Of every `size` consecutive sequences each training process gets one. All of them carry the same position, that after the last.

    :param tokenizer: a fast tokenizer with an end-of-text token.
    :param length: T, tokens per sequence.
    :param rank: rank of this training process, of `size` processes.
    :param workers: number of processes that tokenize for this one; 0 to tokenize in this process.
    :param begin: position to resume from.
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
            group = list(islice(sequences, self.size))
            ids, (_, position) = group[self.rank][0], group[-1]
            yield {"input_ids": torch.from_numpy(ids), POSITION: position.to_tensor()}

    def _sequences(self) -> Iterator[tuple[np.ndarray, Position]]:
        """All sequences, each with the position of the next one."""
        rest, skipped = np.empty(0, dtype=np.int64), self.documents.begin.token
        for ids, place in self._tokenized():
            used = skipped - len(rest)  # tokens of this document before the end of the last sequence
            rest, skipped = np.concatenate([rest, ids[skipped:]]), 0
            while len(rest) >= self.length:
                sequence, rest = rest[: self.length], rest[self.length :]
                used += self.length
                yield sequence, replace(place, token=used)

    def _tokenized(self) -> Iterator[tuple[np.ndarray, Position]]:
        """The tokens of each document, with an end of text, and its position."""
        parcels = DataLoader(
            self.documents,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            generator=torch.Generator(),  # the default would advance the global generator, and so change dropout
        )
        for parcel in parcels:
            if isinstance(parcel, DataError):
                raise parcel
            place, documents = parcel
            for step, ids in enumerate(documents):
                yield ids, replace(place, document=place.document + step)


class _Documents(IterableDataset[tuple[Position, list[np.ndarray]] | DataError]):
    """Endless stream of parcels of tokenized documents, each with the position of its first document.

    Each of n workers yields every n-th parcel, and torch's DataLoader takes them in turn. A :class:`DataError` is yielded instead of
    raised, because the DataLoader would turn it into a traceback.

    :param begin: position of the first document, which is yielded completely.
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
        """The numbers below `count`, shuffled by the seed and the place."""
        return np.random.default_rng([self.seed, *place]).permutation(count).tolist()


def _blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    while block := list(islice(texts, BLOCK)):
        yield block


def _unchanged(parcel: Any) -> Any:
    """Collate function that keeps numpy arrays: they are sent through a pipe, whereas tensors would need shared memory."""
    return parcel
