"""Text to packed sequences of tokens in memory-mapped Arrow, cached by the hash of everything that goes into them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mixln.data.documents import Corpus, corpus, is_hub, is_prepared, path_of
from mixln.data.settings import MOST_VOCABULARY, TextSettings
from mixln.errors import DataError, SettingsError, first_line
from mixln.files import existing, folder_atomic, holding, write_atomic, wrong_size
from mixln.normalizers import check_normalizer
from mixln.records import OPTIONAL, read_record, to_json

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from mixln.data.stream import Stream

FORMAT = 1
"""Changes whenever the packing changes, so that an old cache is not read as a new one."""
END_OF_TEXT = "<|endoftext|>"
HELD_OUT_ROWS = "held_out"
"""Name of the folder of held-out windows."""
WORD = 10_000
"""Letters, digits or signs in a row that a tokenizer is trained on as one word, about; longer ones are cut."""
IGNORED = -100
"""Label of a position that no loss is taken at, as in torch's cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class TextInfo:
    """What is known of a prepared text.

    :param fingerprint: hash of the documents, the tokenizer and the packing.
    :param vocabulary_size: tokens of the tokenizer.
    :param train_tokens: tokens in the training sequences.
    :param held_out_tokens: held-out tokens that are predicted, each exactly once.
    :param held_out_bytes: bytes of the held-out documents in UTF-8.
    :param unigram_loss: held-out loss of a unigram model counted on the training tokens, nats per token.
    :param equal_documents: held-out documents that stand in the training part too; `None` where they were not counted: in a
        stream, and before mixln did.
    :param files: of a text that was prepared file by file, those that hold its training sequences, and their bytes.
    :param stream: of a text that is read while the training goes on, its settings. It has no training sequences yet.
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
        """What it is and how much, in words."""
        train = "streamed" if self.stream is not None else f"{self.documents} training"
        return f"{self.description}; {train} and {self.held_out_documents} held-out documents{self.equal_words}"

    @property
    def equal_words(self) -> str:
        """The number of held-out documents that are also in the training part, in words; empty if it is not known or 0."""
        return f", {self.equal_documents} of which stand in the training part too" if self.equal_documents else ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prepared text on the disk.

    :param folder: holds `train` and `held_out` (Arrow), `tokenizer` and `info.json`.
    """

    folder: Path
    info: TextInfo

    @property
    def train(self) -> Dataset:
        """Rows `input_ids` of exactly `sequence_length` tokens."""
        import datasets

        if not self.info.files:
            return self._part("train")
        found = [datasets.Dataset.from_file(str(self.folder / "train" / name)) for name in self.info.files]
        return datasets.concatenate_datasets(found).with_format("torch")

    @property
    def held_out(self) -> Dataset:
        """Rows `input_ids`, `labels` of `sequence_length` tokens; neighbours share one token, so that each token is predicted once."""
        return self._part(HELD_OUT_ROWS)

    def streamed(self, *, seed: int, **share: Any) -> Stream:
        """The sequences of a stream.

        :param share: what of them, and from where on, see :class:`~mixln.data.stream.Stream`; left out, all from the start.
        """
        from mixln.data.parts import parts
        from mixln.data.stream import Stream

        assert self.info.stream is not None
        settings = self.info.stream
        return Stream(parts(settings), self.tokenizer(), length=settings.sequence_length, seed=seed, **share)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.tokenizer_in(self.folder)

    @staticmethod
    def tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
        """The tokenizer of a text in a folder, whole or not.

        :raises DataError: if it is damaged.
        """
        from transformers import AutoTokenizer

        if not (folder / "tokenizer" / "tokenizer.json").is_file():  # which would be looked for on the hub
            raise damaged(folder, "tokenizer/tokenizer.json is missing")
        try:
            return AutoTokenizer.from_pretrained(folder / "tokenizer")
        except Exception as error:  # transformers checks little of what its files hold
            raise damaged(folder, f"its tokenizer cannot be loaded ({first_line(error)})") from error

    def open(self) -> Self:
        """Opens all parts, so that what is damaged shows before anything is trained; returns itself.

        :raises DataError: if one cannot be opened.
        """
        self.tokenizer()
        try:
            for part in (self.held_out, *([] if self.info.stream else [self.train])):
                part[:1]
        except Exception as error:  # of Arrow and datasets, each with its own
            raise damaged(self.folder, f"its sequences cannot be read ({first_line(error)})") from error
        return self

    def _part(self, name: str) -> Dataset:
        import datasets

        return datasets.load_from_disk(str(self.folder / name)).with_format("torch")  # type: ignore[return-value]

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Opens what :func:`prepare` wrote.

        :raises DataError: if it is damaged, as far as names and sizes tell.
        """
        try:
            info = read_record(TextInfo, folder / "info.json")
        except (OSError, ValueError) as error:
            raise damaged(folder, f"info.json cannot be read ({first_line(error)})") from error
        for name, size in info.files.items():
            if found := wrong_size(folder / "train" / name, size):
                raise damaged(folder, f"train/{name} {found}")
        return cls(folder=folder, info=info)


def damaged(folder: Path, what: str) -> DataError:
    """The error of a prepared text that cannot be used, with its remedy."""
    return DataError(f"data {folder} is damaged: {what}; run its mixln data prepare again, or delete it")


def prepare(settings: TextSettings, *, vocabulary_size: int, tokens: int, cache: Path) -> Text:
    """Reads, splits, tokenizes and packs a text, or finds it in the cache.

    :param vocabulary_size: tokens of the BPE to train where `settings` names neither a tokenizer nor a size.
    :param tokens: training tokens that will be needed.
    :param cache: folder of the cache; it is made if missing.
    :raises DataError: if the text cannot be read, is empty, or is shorter than one sequence in either part.
    """
    from mixln.data.shards import prepare_stream, prepared

    if not (place := existing(cache)).is_dir():
        raise DataError(f"cache {cache} cannot be made: {place} is a file; name another folder with --cache")
    if is_prepared(place := path_of(settings.data)):
        return prepared(settings, place)
    if settings.streaming:
        return prepare_stream(settings, vocabulary_size=vocabulary_size, tokens=tokens, cache=cache)
    size = settings.vocabulary_size or vocabulary_size
    request = hashlib.sha256(json.dumps([FORMAT, to_json(settings), size, tokens]).encode()).hexdigest()[:20]
    remembered = cache / "hub" / request
    if is_hub(settings) and remembered.is_file():
        folder = cache / "text" / remembered.read_text("utf-8")
        if (folder / "info.json").is_file():
            return Text.load(folder)
    documents = corpus(settings, tokens=tokens)
    named = named_tokenizer(settings.tokenizer) if settings.tokenizer else None
    vocabulary = f"{named.backend_tokenizer.to_str()}|{named.eos_token_id}" if named else f"bpe-{size}"
    parts = (FORMAT, documents.fingerprint, vocabulary, settings.sequence_length)
    key = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:20]
    folder = cache / "text" / key
    if not (folder / "info.json").is_file():
        tokenizer = named or trained_tokenizer(documents.train, size)
        _pack(documents, tokenizer, settings.sequence_length, key, folder, settings.tokenizer)
    if is_hub(settings):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(remembered, key)
    text = Text.load(folder)
    # The same documents may have been cached from a file of another name, and by a mixln that did not count the equal ones.
    found = replace(text.info, description=documents.description, equal_documents=documents.equal_documents)
    return replace(text, info=found)


def named_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """An existing tokenizer.

    :raises DataError: if it cannot be loaded, has no fast version or no end of sequence, or blows texts up.
    """
    from transformers import AutoTokenizer

    from mixln.quiet import quiet

    place = _tokenizer_at(name)
    check_normalizer(place)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError and others for the same mistake
        raise DataError(
            f"tokenizer {name!r} cannot be loaded: {first_line(error)}; name a folder or a hub id that holds one"
        ) from error
    if not tokenizer.is_fast:
        raise DataError(
            f"tokenizer {name!r} has no fast version (tokenizer.json), which packing needs; name one that has"
        )
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"tokenizer {name!r} has no end-of-sequence token, which separates documents; name one that has"
        )
    check_normalizer(name, tokenizer)
    return tokenizer


def _tokenizer_at(name: str) -> str:
    """The folder of a tokenizer, or its hub id if the hub knows it. The hub is asked once: transformers would ask it for each file, and
    again where there is no answer.

    :raises DataError: if it is a file, a path that does not exist, or no public model of the hub.
    """
    from huggingface_hub import HfApi, snapshot_download

    from mixln.hosts.sources import HUB_SECONDS

    remedy = "name a folder or a hub id that holds one"
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return str(path)
    if path.exists():
        raise DataError(f"tokenizer {name!r} is a file; name its folder, or a hub id")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".json", ".model", ".txt")):
        raise DataError(f"tokenizer {name!r} does not exist; {remedy}")
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # no network, offline mode, no such model: what was fetched before will do
        try:
            return snapshot_download(name, local_files_only=True)
        except Exception:
            raise DataError(f"tokenizer {name!r} cannot be loaded: {first_line(error)}; {remedy}") from error
    return name


def trained_tokenizer(documents: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the training documents only.

    :raises SettingsError: if it is to have too many tokens.
    """
    if size > MOST_VOCABULARY:
        raise SettingsError(
            f"vocabulary-size must be at most {MOST_VOCABULARY:,} for a tokenizer that mixln trains, got {size}; set it"
        )
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size,  # type: ignore[call-arg]
        special_tokens=[END_OF_TEXT],  # type: ignore[call-arg]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # type: ignore[call-arg]
        show_progress=False,  # type: ignore[call-arg]
    )
    bpe.train_from_iterator(_short_words(documents, bpe.pre_tokenizer), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )


def _short_words(documents: Iterable[str], pre_tokenizer: Any) -> Iterator[str]:
    """The documents, those with words of many thousand letters cut within them: the time to learn from a word grows with its square."""
    for document in documents:
        begin = 0
        for start in range(0, len(document) - WORD + 1, WORD):
            part = document[start : start + WORD]
            if len(part.split(None, 1)) < 2 and len(pre_tokenizer.pre_tokenize_str(part)) == 1:
                yield document[begin : start + WORD]
                begin = start + WORD
        yield document[begin:]


def _stream(documents: list[str], tokenizer: Any) -> np.ndarray:
    """All documents as one array of token ids, an end of text before the first and after each."""
    import numpy as np

    return np.concatenate([np.array([tokenizer.eos_token_id]), *encoded(documents, tokenizer)])


def encoded(documents: list[str], tokenizer: Any) -> list[np.ndarray]:
    """The tokens of each document, an end of text after them.

    :raises DataError: if the tokenizer fails on them.
    """
    import numpy as np

    if not documents:
        return []
    try:
        found = tokenizer(documents, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a failed assertion of the library; its class cannot be imported
            raise
        raise DataError(f"the tokenizer fails on this text: {first_line(error)}; use another --tokenizer") from error
    return [np.array([*ids, tokenizer.eos_token_id], dtype=np.int64) for ids in found]


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, origin: str | None) -> None:
    """Writes a tokenizer into a folder of its own.

    :param origin: the folder or hub id that it was loaded from; `None` for one that was trained here.
    :raises DataError: if what is written would give other tokens.
    """
    from mixln.hosts.companions import write_companion

    folder.mkdir(exist_ok=True)
    write_companion(tokenizer, folder, origin=os.path.expanduser(origin or ""))


def _pack(documents: Corpus, tokenizer: Any, length: int, key: str, folder: Path, origin: str | None) -> None:
    import datasets
    import numpy as np

    train, held_out = _stream(documents.train, tokenizer), _stream(documents.held_out, tokenizer)
    for name, part in (("training", train), ("held-out", held_out)):
        _check_length(len(part), name, length, documents.description)
    rows = train[: len(train) // length * length].reshape(-1, length)
    info = TextInfo(
        description=documents.description,
        fingerprint=key,
        vocabulary_size=len(tokenizer),
        documents=len(documents.train),
        held_out_documents=len(documents.held_out),
        equal_documents=documents.equal_documents,
        train_tokens=rows.size,
        held_out_tokens=len(held_out) - 1,
        held_out_bytes=sum(len(document.encode("utf-8")) for document in documents.held_out),
        unigram_loss=unigram_loss(np.bincount(train, minlength=len(tokenizer)), held_out[1:]),
    )
    datasets.disable_progress_bars()
    narrow = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})
    with folder_atomic(folder, keeps=holding("info.json")) as target:
        as_rows = {"input_ids": list(rows.astype(np.int32))}
        datasets.Dataset.from_dict(as_rows, features=narrow).save_to_disk(str(target / "train"))
        _windows(held_out, length).save_to_disk(str(target / HELD_OUT_ROWS))
        save_tokenizer(tokenizer, target / "tokenizer", origin)
        write_atomic(target / "info.json", json.dumps(to_json(info), indent=1))


def held_out_rows(documents: list[str], tokenizer: Any, length: int, description: str) -> Dataset:
    """The windows of held-out documents, see :func:`held_out_windows`.

    :raises DataError: if they are shorter than one.
    """
    stream = _stream(documents, tokenizer)
    _check_length(len(stream), "held-out", length, description)
    return _windows(stream, length)


def _windows(stream: np.ndarray, length: int) -> Dataset:
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    columns = dict(zip(("input_ids", "labels"), held_out_windows(stream, length), strict=True))
    features = datasets.Features({name: datasets.List(datasets.Value("int32")) for name in columns})
    as_rows = {name: list(values.astype(np.int32)) for name, values in columns.items()}
    return datasets.Dataset.from_dict(as_rows, features=features)


def _check_length(tokens: int, name: str, length: int, description: str) -> None:
    if tokens < length:
        raise DataError(
            f"data {description}: the {name} part has {tokens} tokens, fewer than one sequence of {length}; "
            "give more text or a smaller --sequence-length"
        )


def held_out_windows(stream: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a stream of n tokens into windows of `length` that overlap by one token, so that tokens 2..n are each a target once.

    :returns: inputs and labels, both (windows, length). The last window is padded; a padded label is -100. The labels are
        not shifted: like transformers, the loss compares position t with label t + 1, and the first label of a window is unused.
    """
    import numpy as np

    starts = range(0, max(1, len(stream) - 1), length - 1)
    inputs = np.full((len(starts), length), stream[-1])
    labels = np.full((len(starts), length), IGNORED)
    for row, start in enumerate(starts):
        window = stream[start : start + length]
        inputs[row, : len(window)] = window
        labels[row, : len(window)] = window
    return inputs, labels


def unigram_loss(counts: np.ndarray, targets: np.ndarray) -> float:
    """Mean −log p over the targets, nats, where p counts the training tokens with one added to every count."""
    import numpy as np

    counts = counts + 1
    return float(-np.log(counts / counts.sum())[targets].mean())
