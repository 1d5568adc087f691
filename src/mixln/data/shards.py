"""Prepares a text before training: tokenizes and packs it file by file into memory-mapped Arrow, in one or more processes.

<out>/request.json       the request; a different one is refused
<out>/tokenizer/, held_out/, held_out.jsonl (the held-out documents)
<out>/train/00012.arrow  the packed sequences of a source file; marks the file as done
<out>/train/00012.npy    count of each token in it
<out>/train/00012.json   the held-out documents that are also in it
<out>/info.json          written last: the text is complete

Source files are processed in an order that is shuffled with their number as the seed, so that the part used of a large data set is
representative, up to the file that reaches the requested number of tokens. After an interruption, unfinished files are repeated.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mixln.data.documents import HELD_OUT_TEXT, REQUEST, held_out_texts, is_prepared, path_of
from mixln.data.packing import IGNORED, held_out_rows, unigram_loss
from mixln.data.settings import PackSettings, PrepareSettings, TextSettings
from mixln.data.sharded_corpus import LEAST_HELD_OUT, MOST_HELD_OUT, ShardedCorpus, sharded_corpus
from mixln.data.text import AGAIN, CACHED, HELD_OUT_ROWS, INFO, Text, TextInfo, corrupt
from mixln.data.tokenizer import encoded, named_tokenizer, save_tokenizer, trained_tokenizer
from mixln.errors import DataError, MixlnError, StoreError
from mixln.files import (
    check_writable,
    folder_atomic,
    fsync,
    holding,
    keep_new,
    make_folder,
    note,
    remove_written,
    set_aside,
    undone_on,
    write_atomic,
    wrong_size,
)
from mixln.records import difference, to_json, unreadable
from mixln.runs.folder import RunFolder, RunKind, State
from mixln.runs.schema import Request, Schema

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of split and packing, part of the request: a text begun with another version is not resumed."""
TRAIN, TOKENIZER = "train", "tokenizer/tokenizer.json"
PREPARED = RunKind(noun="prepared text", request=Schema(kind="text-request", file=REQUEST, record=Request), result=INFO)
VOCABULARY = 32_000
"""Default vocabulary size of a tokenizer trained here."""
OF_ROWS = re.compile(r"data-\d{5}-of-\d{5}\.arrow|dataset_info\.json|state\.json")
"""Names of the files that datasets' `save_to_disk` writes."""
WAIT = -1.0
"""Seconds to wait for the lock of a folder; negative for no limit, because several processes may prepare one text."""
AT_ONCE = 1000
"""Largest number of documents tokenized at a time."""
SAMPLE = 20_000_000
"""Characters of text to train a tokenizer on; also the largest number tokenized at a time."""
NEWS = 5.0
"""Seconds between two log lines."""
PATIENCE = 2.0
"""Seconds between two checks whether other processes have finished a file."""


@dataclass(frozen=True, kw_only=True)
class DuplicateDocuments:
    """Digests of the held-out documents that are also in a training file."""

    digests: tuple[str, ...]


EQUAL = Schema(
    kind="equal-documents",
    file="00000.json",
    record=DuplicateDocuments,
    upgrades=(lambda digests: {"digests": digests},),
)


def prepare_shards(settings: PrepareSettings) -> Text:
    """Prepares a text in a folder, or resumes its preparation; several processes may do so concurrently.

    :raises DataError: if the text cannot be read or is too short; :class:`StoreError` if the folder holds another text.
    """
    if is_prepared(path_of(settings.data)):
        raise DataError(f"data {settings.data} is already prepared; train with it, or prepare the original text")
    source, out = sharded_corpus(settings), settings.out
    entries = {item.name: getattr(settings, item.name) for item in fields(PrepareSettings) if item.name != "out"}
    if (path := path_of(settings.data)).exists():
        entries["data"] = path.name  # without its folder, which may differ on another machine
    # Tuples become lists, as in the stored request with which it is compared.
    request = json.loads(json.dumps({"format": FORMAT, **entries, "of": source.identity}))
    check_writable(out)
    # A missing column or tokenizer is an error before anything is written.
    next(source.files[0](), None)
    named = _named(settings)
    with undone_on(out, MixlnError):
        return _prepared(out, source, settings, request, named)


def _prepared(out: Path, source: ShardedCorpus, settings: PrepareSettings, request: dict[str, Any], named: Any) -> Text:
    tokens = settings.tokens
    run = RunFolder(out, PREPARED)
    if run.state is State.FOREIGN:
        raise run.foreign()
    with run.locked(WAIT), undone_on(out, MixlnError):
        _claim(run, request)
        if _is_complete(out):
            return Text.load(out)
        _begin(out, source, settings, tokens, named)
    tokenizer = Text.tokenizer_in(out)
    held_out = frozenset(held_out_texts(out))
    order = list(range(len(source.files)))
    random.Random(len(order)).shuffle(order)
    began = logged = time.monotonic()
    work, sizes = 0, {}
    while missing := _missing(out, order, tokens, sizes):
        progressed = False
        # The first file that no other process holds; then `missing` is computed again, because others may have finished files.
        for file in missing:
            try:
                if not (lock := _arrow(out, file).with_suffix(".lock")).exists():
                    note(lock)
                with FileLock(lock, timeout=0):
                    if not _arrow(out, file).is_file():
                        packed = _pack_file(out, source, file, tokenizer, settings.sequence_length, tokens, held_out)
                        work, progressed = work + packed, True
                        if packed:
                            keep_new()
            except Timeout:  # another process holds it
                continue
            if time.monotonic() - logged >= NEWS:
                logged = time.monotonic()
                log.info(_progress(sum(sizes.values()), tokens, work / (logged - began)))
            break
        if not progressed:
            time.sleep(PATIENCE)
    with run.locked(WAIT):
        if not _is_complete(out):
            _finish(out, source, settings, _used(order, tokens, sizes), tokenizer, request)
    return Text.load(out)


def prepare_stream(settings: TextSettings, *, vocabulary_size: int, tokens: int, cache: Path) -> Text:
    """Prepares what training on a stream needs: a tokenizer, held-out text, and the token counts of a sample.

    :param vocabulary_size: tokens of the BPE to train if `settings` names no tokenizer.
    :param tokens: training tokens; they determine the amount of held-out text.
    """
    source = sharded_corpus(settings)
    request = {"format": FORMAT, **to_json(settings), "tokens": tokens, "of": source.identity, "bpe": vocabulary_size}
    key = hashlib.sha256(json.dumps(request).encode()).hexdigest()[:20]
    folder = cache / "text" / key

    def make(target: Path) -> TextInfo:
        _begin(target, source, settings, tokens, _named(settings), vocabulary_size)
        tokenizer = Text.tokenizer_in(target)
        counts = sum(np.bincount(ids, minlength=len(tokenizer)) for ids in _encoded(_sample(source), tokenizer))
        return replace(_info(target, source, counts, tokenizer, key), stream=settings)

    RunFolder(folder, CACHED).fill(make)
    return Text.load(folder)


def prepared(settings: PackSettings, folder: Path) -> Text:
    """The prepared text in a folder.

    :raises DataError: if it is incomplete, or was packed with other settings.
    """
    if not (folder / INFO.file).is_file():
        raise DataError(f"data {folder} is incomplete; run its mixln data prepare again")
    request = _request(folder)
    if (length := request.get("sequence_length")) != settings.sequence_length:
        raise DataError(
            f"data {folder} is packed to sequences of {length} tokens; use --sequence-length {length}, or prepare it again"
        )
    if settings.tokenizer not in (None, request.get("tokenizer")) or settings.vocabulary_size is not None:
        raise DataError(f"data {folder} is already tokenized; omit --tokenizer and --vocabulary-size")
    return Text.load(folder).open()


def _is_complete(out: Path) -> bool:
    """Whether a text is completely prepared. Pieces whose size has changed are deleted, so that they are made again."""
    try:
        files = INFO.read(out / INFO.file).files
    except (OSError, ValueError):
        return False
    pieces = {name: size for name, size in files.items() if re.fullmatch(r"\d{5,}\.(arrow|npy)", name)}
    wrong = [name for name, size in pieces.items() if wrong_size(out / TRAIN / name, size)]
    for name in wrong:
        (out / TRAIN / name).unlink(missing_ok=True)
    return pieces == files and not wrong and (out / TOKENIZER).is_file() and (out / HELD_OUT_ROWS).is_dir()


def _progress(ready: int, tokens: int, speed: float) -> str:
    """Log line on the progress; `speed` is that of this process alone, tokens per second."""
    left = f", at most {max(0, tokens - ready) / speed / 60 + 1:.0f} minutes left" if speed else ""
    return f"{ready:,} of {tokens:,} tokens, {speed:,.0f} tokens/s{left}"


def _claim(run: RunFolder[TextInfo], request: Request) -> None:
    """Claims a locked folder for a request if it is free, and compares the requests otherwise."""
    if (present := run.request()) is None:
        run.begin(request)
        return
    now, before = ({**entries, "of": None} for entries in (request, present))
    if changed := difference({name: before.get(name) for name in now}, now):
        raise run.another(changed)
    if present.get("of") != request["of"]:
        _renew(run, present.get("of"), request["of"])
        run.begin(request)


def _request(folder: Path) -> Request:
    """The request of a prepared text.

    :raises DataError: if it is corrupt.
    """
    try:
        return PREPARED.request.read(folder / REQUEST)
    except (OSError, ValueError) as error:
        raise DataError(unreadable(folder / REQUEST, error, AGAIN)) from error


def _renew(run: RunFolder[TextInfo], before: Any, now: list[Any]) -> None:
    """Deletes the pieces of source files that have been corrected since, and the held-out text.

    :param before: identity of the source when the folder was begun; `now` its current one: name, size and time of each file.
    :raises StoreError: if the files have other names, or another process holds one. :class:`DataError` if the tokenizer with which the
        other pieces were packed is missing.
    """
    out = run.folder
    if any((out / TRAIN).glob("*.arrow")) and not (out / TOKENIZER).is_file():
        raise corrupt(out, f"{TOKENIZER} is missing, and the text has changed since")
    # The identity of a hub data set has strings as entries.
    if not isinstance(before, list) or any(isinstance(entry, str) for entry in (*before, *now)):
        raise run.another("its files are different", "choose another --out")
    if [entry[0] for entry in before] != [entry[0] for entry in now]:
        raise run.another("its files are different", "choose another --out")
    for file in (number for number, (old, new) in enumerate(zip(before, now, strict=True)) if old != new):
        try:
            with FileLock(_arrow(out, file).with_suffix(".lock"), timeout=0):
                _arrow(out, file).unlink(missing_ok=True)
        except Timeout as error:
            raise StoreError(
                f"out {out}: {now[file][0]} has changed while another process reads it; wait for it"
            ) from error
    for counted in (out / TRAIN).glob("?????.json"):  # they refer to the previous held-out documents
        counted.unlink(missing_ok=True)
    (out / INFO.file).unlink(missing_ok=True)
    _clear_held_out(out / HELD_OUT_ROWS)


def _clear_held_out(folder: Path) -> None:
    """Deletes the held-out sequences; if the folder contains other files, it is set aside."""
    if folder.is_dir() and not folder.is_symlink():
        remove_written(folder, [path.name for path in folder.iterdir() if OF_ROWS.fullmatch(path.name)])
    if os.path.lexists(folder):
        set_aside(folder)


def _named(settings: PackSettings) -> Any:
    """The tokenizer that the settings name; `None` if one is to be trained."""
    return named_tokenizer(settings.tokenizer) if settings.tokenizer else None


def _begin(
    out: Path, source: ShardedCorpus, settings: PackSettings, tokens: int, tokenizer: Any, vocabulary: int = VOCABULARY
) -> None:
    """Writes the tokenizer and the held-out text unless they exist.

    :param tokenizer: `None` to train one with the vocabulary size of the settings, by default `vocabulary`.
    """
    if not (out / TOKENIZER).is_file():
        if tokenizer is None:
            tokenizer = trained_tokenizer(list(_sample(source)), settings.vocabulary_size or vocabulary)
        with folder_atomic(out / "tokenizer", keeps=holding("tokenizer.json")) as folder:
            save_tokenizer(tokenizer, folder, settings.tokenizer)
    make_folder(out / TRAIN)
    if not (out / HELD_OUT_ROWS).is_dir():
        documents = source.held_out(min(MOST_HELD_OUT, max(LEAST_HELD_OUT, int(tokens * settings.held_out))))
        write_atomic(out / HELD_OUT_TEXT, "".join(json.dumps({"text": text}) + "\n" for text in documents))
        rows = held_out_rows(documents, Text.tokenizer_in(out), settings.sequence_length, source.description)
        with folder_atomic(out / HELD_OUT_ROWS) as folder:
            rows.save_to_disk(str(folder))


def _sample(source: ShardedCorpus) -> Iterator[str]:
    """Documents from the beginning of the text, about :data:`SAMPLE` characters.

    :raises DataError: if all documents are held out.
    """
    seen = 0
    for file in range(len(source.files)):
        for text in source.train(file):
            yield text
            seen += len(text)
            if seen >= SAMPLE:
                return
    if not seen:
        raise DataError(f"data {source.description} has no document except the held-out ones; give more text")


def _pack_file(
    out: Path, source: ShardedCorpus, file: int, tokenizer: Any, length: int, tokens: int, held_out: frozenset[str]
) -> int:
    """Packs up to about `tokens` tokens of one file and returns their number. An incomplete last sequence is dropped.

    :param held_out: held-out documents; the digests of those that are also in the file are stored.
    """
    import pyarrow as pa

    schema = pa.schema({"input_ids": pa.list_(pa.int32())})
    target, counts = _arrow(out, file), np.zeros(len(tokenizer), dtype=np.int64)
    unfinished = target.with_suffix(".saving")
    note(unfinished)
    rest, packed = np.array([tokenizer.eos_token_id]), 0
    equal: set[str] = set()

    def noted(texts: Iterator[str]) -> Iterator[str]:
        """The same texts; records which of them are held out."""
        for text in texts:
            if text in held_out:
                equal.add(_digest(text))
            yield text

    with pa.OSFile(str(unfinished), "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for ids in _encoded(noted(source.train(file)), tokenizer):
            rest = np.concatenate([rest, ids])
            # Tokens of all complete sequences, but only as many sequences as are needed to reach `tokens`.
            size = min(len(rest) // length, (tokens - packed + length - 1) // length) * length
            rows, rest = rest[:size], rest[size:]
            if size:
                values = pa.array(rows.astype(np.int32))
                offsets = pa.array(np.arange(0, size + 1, length, dtype=np.int32))
                writer.write_batch(pa.record_batch([pa.ListArray.from_arrays(offsets, values)], schema=schema))
                counts += np.bincount(rows, minlength=len(counts))
                packed += size
            if packed >= tokens:
                break
    # The .arrow file marks the source file as done, so it is renamed last and everything else is on disk before.
    fsync(unfinished)
    write_atomic(target.with_suffix(".npy"), _npy(counts))
    # Not flushed: without it, equal documents are merely not counted.
    note(target.with_suffix(".json"))
    target.with_suffix(".json").write_text(EQUAL.text(DuplicateDocuments(digests=tuple(sorted(equal)))))
    os.rename(unfinished, target)
    note(target)
    fsync(target.parent)
    return packed


def _encoded(texts: Iterator[str], tokenizer: Any) -> Iterator[np.ndarray]:
    """Tokenizes documents in batches; yields the concatenated tokens of each batch, with an end of text after each document."""
    documents, size = [], 0
    for text in texts:
        documents.append(text)
        size += len(text)
        if len(documents) >= AT_ONCE or size >= SAMPLE:
            yield np.concatenate(encoded(documents, tokenizer))
            documents, size = [], 0
    if documents:
        yield np.concatenate(encoded(documents, tokenizer))


def _arrow(out: Path, file: int) -> Path:
    return out / TRAIN / f"{file:05}.arrow"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _counts(out: Path, file: int) -> np.ndarray:
    return np.load(_arrow(out, file).with_suffix(".npy"), allow_pickle=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:20]


def _equal(out: Path, files: list[int]) -> int | None:
    """Number of held-out documents that are also in the training files; `None` if a file was packed without recording them."""
    try:
        digests = {digest for file in files for digest in EQUAL.read(_arrow(out, file).with_suffix(".json")).digests}
    except (OSError, ValueError):
        return None
    return sum(_digest(text) in digests for text in held_out_texts(out))


def _missing(out: Path, order: list[int], tokens: int, sizes: dict[int, int]) -> list[int]:
    """The files to process next, in order; empty if there are enough tokens or no more files.

    :param sizes: file → tokens, for files known to be done; newly found ones are added.
    """
    for file in order:
        if file not in sizes and _arrow(out, file).is_file():
            sizes[file] = int(_counts(out, file).sum())
    if sum(sizes[file] for file in _used(order, tokens, sizes)) >= tokens:
        return []
    return [file for file in order if file not in sizes]


def _used(order: list[int], tokens: int, sizes: dict[int, int]) -> list[int]:
    """The first files in the order that together reach `tokens`, or all before the first that is not done."""
    used, ready = [], 0
    for file in order:
        if ready >= tokens or file not in sizes:
            break
        used.append(file)
        ready += sizes[file]
    return used


def _finish(
    out: Path,
    source: ShardedCorpus,
    settings: PrepareSettings,
    used: list[int],
    tokenizer: Any,
    request: dict[str, Any],
) -> None:
    counts = sum((_counts(out, file) for file in used), np.zeros(len(tokenizer), dtype=np.int64))
    if not counts.any():
        raise DataError(
            f"data {source.description}: no file has as many tokens as one sequence of {settings.sequence_length}; "
            "give more text or a smaller --sequence-length"
        )
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:20]
    info = replace(
        _info(out, source, counts, tokenizer, fingerprint),
        documents=int(counts[tokenizer.eos_token_id]),
        train_tokens=int(counts.sum()),
        equal_documents=_equal(out, used),
        files={_arrow(out, file).name: _arrow(out, file).stat().st_size for file in used},
    )
    INFO.write(out, info)


def _info(out: Path, source: ShardedCorpus, counts: Any, tokenizer: Any, fingerprint: str) -> TextInfo:
    """Facts about a text whose held-out part has been written into a folder.

    :param counts: count of each token in its training part or a sample of it.
    """
    import datasets

    documents = held_out_texts(out)
    labels = np.array(datasets.load_from_disk(str(out / HELD_OUT_ROWS)).with_format("numpy")["labels"][:])[:, 1:]
    targets = labels[labels != IGNORED]
    return TextInfo(
        description=source.description,
        fingerprint=fingerprint,
        vocabulary_size=len(tokenizer),
        documents=0,
        held_out_documents=len(documents),
        train_tokens=0,
        held_out_tokens=len(targets),
        held_out_bytes=sum(len(text.encode("utf-8")) for text in documents),
        unigram_loss=unigram_loss(counts, targets),
    )
