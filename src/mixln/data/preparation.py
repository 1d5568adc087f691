"""Tokenizes and packs a text into memory-mapped Arrow files, cached under the hash of all inputs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixln.data.documents import Corpus, corpus, is_hub, is_prepared, path_of
from mixln.data.packing import check_length, stream, unigram_loss, windows
from mixln.data.settings import TextSettings
from mixln.data.text import CACHED, HELD_OUT_ROWS, Text, TextInfo
from mixln.data.tokenizer import named_tokenizer, save_tokenizer, trained_tokenizer
from mixln.errors import DataError
from mixln.files import existing, write_atomic
from mixln.records import to_json
from mixln.runs.folder import RunFolder

FORMAT = 1
"""Version of the packing, part of the cache key; increase it whenever the packing changes."""


def prepare(settings: TextSettings, *, vocabulary_size: int, tokens: int, cache: Path) -> Text:
    """Reads, splits, tokenizes and packs a text, or returns it from the cache.

    :param vocabulary_size: tokens of the BPE to train if `settings` names neither a tokenizer nor a size.
    :param tokens: training tokens needed.
    :param cache: folder of the cache, created if missing.
    :raises DataError: if the text cannot be read, is empty, or either part is shorter than one sequence.
    """
    from mixln.data.shards import prepare_stream, prepared

    if not (place := existing(cache)).is_dir():
        raise DataError(f"cache {cache} cannot be created: {place} is a file; choose another folder with --cache")
    if is_prepared(place := path_of(settings.data)):
        return prepared(settings, place)
    if settings.streaming:
        return prepare_stream(settings, vocabulary_size=vocabulary_size, tokens=tokens, cache=cache)
    size = settings.vocabulary_size or vocabulary_size
    request = hashlib.sha256(json.dumps([FORMAT, to_json(settings), size, tokens]).encode()).hexdigest()[:20]
    # The key below is the hash of the documents, which must be downloaded first: this file stores the key of a hub request.
    known_key = cache / "hub" / request
    if is_hub(settings) and known_key.is_file():
        folder = cache / "text" / known_key.read_text("utf-8")
        if RunFolder(folder, CACHED).has_result:
            return Text.load(folder)
    documents = corpus(settings, tokens=tokens)
    named = named_tokenizer(settings.tokenizer) if settings.tokenizer else None
    vocabulary = f"{named.backend_tokenizer.to_str()}|{named.eos_token_id}" if named else f"bpe-{size}"
    parts = (FORMAT, documents.fingerprint, vocabulary, settings.sequence_length)
    key = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:20]
    folder = cache / "text" / key

    def make(target: Path) -> TextInfo:
        tokenizer = named or trained_tokenizer(documents.train, size)
        return _pack(documents, tokenizer, settings.sequence_length, key, target, settings.tokenizer)

    RunFolder(folder, CACHED).fill(make)
    if is_hub(settings):
        known_key.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(known_key, key)
    text = Text.load(folder)
    # The documents may have been cached from a file of another name, and by a version that did not count equal documents.
    info = replace(text.info, description=documents.description, equal_documents=documents.equal_documents)
    return replace(text, info=info)


def _pack(documents: Corpus, tokenizer: Any, length: int, key: str, folder: Path, origin: str | None) -> TextInfo:
    import datasets
    import numpy as np

    train, held_out = stream(documents.train, tokenizer), stream(documents.held_out, tokenizer)
    for name, part in (("training", train), ("held-out", held_out)):
        check_length(len(part), name, length, documents.description)
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
    # int32 instead of the default int64 halves the size on disk.
    narrow = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})
    as_rows = {"input_ids": list(rows.astype(np.int32))}
    datasets.Dataset.from_dict(as_rows, features=narrow).save_to_disk(str(folder / "train"))
    windows(held_out, length).save_to_disk(str(folder / HELD_OUT_ROWS))
    save_tokenizer(tokenizer, folder / "tokenizer", origin)
    return info
