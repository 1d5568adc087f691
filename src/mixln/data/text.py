"""Prepared text: packed sequences of tokens in memory-mapped Arrow, the tokenizer, and facts about them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mixln.data.settings import TextSettings
from mixln.errors import DataError, first_line
from mixln.files import wrong_size
from mixln.records import OPTIONAL, unreadable
from mixln.runs.folder import RunKind
from mixln.runs.schema import Schema

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from mixln.data.stream import TokenStream

HELD_OUT_ROWS = "held_out"
"""Name of the folder of held-out windows."""
AGAIN = "run its mixln data prepare again, or delete it"
"""Remedy for a corrupt prepared text."""


@dataclass(frozen=True, kw_only=True)
class TextInfo:
    """Facts about a prepared text.

    :param fingerprint: hash of the documents, the tokenizer and the packing.
    :param vocabulary_size: tokens of the tokenizer.
    :param documents: number of training documents.
    :param train_tokens: tokens in the training sequences.
    :param held_out_tokens: held-out tokens that are predicted, each exactly once.
    :param held_out_bytes: bytes of the held-out documents in UTF-8.
    :param unigram_loss: held-out loss of a unigram model counted on the training tokens, nats per token.
    :param equal_documents: held-out documents that are also in the training part; `None` if they were not counted, as in a stream
        or by an earlier version.
    :param files: for a text prepared file by file: name of a file with training sequences → its size in bytes.
    :param stream: settings of a text that is read during training, which has no stored training sequences; else `None`.
    """

    description: str
    fingerprint: str
    vocabulary_size: int
    documents: int
    held_out_documents: int
    train_tokens: int
    held_out_tokens: int
    held_out_bytes: int
    unigram_loss: float
    equal_documents: int | None = field(default=None, metadata=OPTIONAL)
    files: dict[str, int] = field(default_factory=dict, metadata=OPTIONAL)
    stream: TextSettings | None = field(default=None, metadata=OPTIONAL)

    def bits_per_byte(self, loss: float) -> float:
        """Converts a held-out loss in nats per token to bits per byte of the text."""
        return loss * self.held_out_tokens / (self.held_out_bytes * math.log(2))

    @property
    def words(self) -> str:
        """Description with the numbers of documents."""
        train = "streamed" if self.stream is not None else f"{self.documents} training"
        return f"{self.description}; {train} and {self.held_out_documents} held-out documents{self.equal_words}"

    @property
    def equal_words(self) -> str:
        """Clause on held-out documents that are also in the training part; empty if there are none or the number is not known."""
        return f", {self.equal_documents} of which are also in the training part" if self.equal_documents else ""


INFO = Schema(kind="text", file="info.json", record=TextInfo)
CACHED = RunKind(noun="text", result=INFO)
"""A text in the cache, in a folder named by the hash of its request."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prepared text on disk.

    :param folder: contains `train` and `held_out` (Arrow), `tokenizer` and `info.json`.
    """

    folder: Path
    info: TextInfo

    @property
    def train(self) -> Dataset:
        """Rows `input_ids` of exactly `sequence_length` tokens."""
        import datasets

        if not self.info.files:
            return self._part("train")
        parts = [datasets.Dataset.from_file(str(self.folder / "train" / name)) for name in self.info.files]
        return datasets.concatenate_datasets(parts).with_format("torch")

    @property
    def held_out(self) -> Dataset:
        """Rows `input_ids`, `labels` of `sequence_length` tokens; neighbours share one token, so that each token is predicted once."""
        return self._part(HELD_OUT_ROWS)

    def streamed(self, *, seed: int, **share: Any) -> TokenStream:
        """The sequences of a stream.

        :param share: rank, size, workers and begin of :class:`~mixln.data.stream.TokenStream`; by default all sequences from the start.
        """
        from mixln.data.sharded_corpus import sharded_corpus
        from mixln.data.stream import TokenStream

        assert self.info.stream is not None
        settings = self.info.stream
        return TokenStream(
            sharded_corpus(settings), self.tokenizer(), length=settings.sequence_length, seed=seed, **share
        )

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.tokenizer_in(self.folder)

    @staticmethod
    def tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
        """The tokenizer of a text in a folder, which may be incomplete.

        :raises DataError: if it is corrupt.
        """
        from transformers import AutoTokenizer

        if not (folder / "tokenizer" / "tokenizer.json").is_file():  # transformers would search for it on the hub
            raise corrupt(folder, "tokenizer/tokenizer.json is missing")
        try:
            return AutoTokenizer.from_pretrained(folder / "tokenizer")
        except Exception as error:  # transformers raises many types for corrupt files
            raise corrupt(folder, f"its tokenizer cannot be loaded ({first_line(error)})") from error

    def open(self) -> Self:
        """Opens all parts, so that a corrupt one is detected before training; returns itself.

        :raises DataError: if a part cannot be opened.
        """
        self.tokenizer()
        try:
            for part in (self.held_out, *([] if self.info.stream else [self.train])):
                part[:1]
        except Exception as error:  # Arrow and datasets raise many types
            raise corrupt(self.folder, f"its sequences cannot be read ({first_line(error)})") from error
        return self

    def _part(self, name: str) -> Dataset:
        import datasets

        return datasets.load_from_disk(str(self.folder / name)).with_format("torch")  # type: ignore[return-value]

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Opens what :func:`~mixln.data.preparation.prepare` wrote. Only names and sizes of files are checked; see :meth:`open`.

        :raises DataError: if it is corrupt.
        """
        try:
            info = INFO.read(folder / INFO.file)
        except (OSError, ValueError) as error:
            raise DataError(unreadable(folder / INFO.file, error, AGAIN)) from error
        for name, size in info.files.items():
            if fault := wrong_size(folder / "train" / name, size):
                raise corrupt(folder, f"train/{name} {fault}")
        return cls(folder=folder, info=info)


def corrupt(folder: Path, fault: str) -> DataError:
    """Error for a corrupt prepared text, with its remedy."""
    return DataError(f"data {folder} is corrupt: {fault}; {AGAIN}")
