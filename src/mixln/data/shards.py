"""Text prepared ahead of the training: tokenized and packed file by file into memory-mapped Arrow, by one process or several.

<out>/request.json       what is being prepared: another request does not mix with it
<out>/tokenizer/         and held_out/, and held_out.jsonl with its documents
<out>/train/00012.arrow  the packed sequences of a file; the mark that it is done
<out>/train/00012.npy    how often each token occurs in it
<out>/train/00012.json   which held-out documents stand in it too
<out>/info.json          written last: the text is whole

The files are taken in an order drawn from their number, so that a part of a large data set is a fair part of it, and used up
to the one that reaches the tokens asked for. A file that was cut off is begun again; one that is done is not.
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
"""Changes whenever the split or the packing does, so that a text begun with another is not gone on with."""
TRAIN, TOKENIZER = "train", "tokenizer/tokenizer.json"
PREPARED = RunKind(noun="prepared text", request=Schema(kind="text-request", file=REQUEST, record=Request), result=INFO)
VOCABULARY = 32_000
"""Tokens of a tokenizer that is trained here, where the settings do not say."""
OF_ROWS = re.compile(r"data-\d{5}-of-\d{5}\.arrow|dataset_info\.json|state\.json")
"""Names of the files of a data set that was saved to the disk."""
WAIT = -1.0
"""Seconds to wait for a process that has a folder: for ever, as several may prepare one text together."""
AT_ONCE = 1000
"""Documents tokenized at once."""
SAMPLE = 20_000_000
"""Characters of text that a tokenizer is trained on, and that are tokenized at once."""
NEWS = 5.0
"""Seconds between two lines of news."""
PATIENCE = 2.0
"""Seconds between two looks at what other processes are at."""


@dataclass(frozen=True, kw_only=True)
class DuplicateDocuments:
    """The held-out documents that stand in a file too, by their digests."""

    digests: tuple[str, ...]


EQUAL = Schema(
    kind="equal-documents", file="00000.json", record=DuplicateDocuments, upgrade=lambda digests: {"digests": digests}
)


def prepare_shards(settings: PrepareSettings) -> Text:
    """Prepares a text in a folder, or what is missing of it; several processes may do so together.

    :raises DataError: if the text cannot be read or is too short; :class:`StoreError` if another lies in the folder.
    """
    if is_prepared(path_of(settings.data)):
        raise DataError(
            f"data {settings.data} is prepared already; train with it, or prepare the text that it was made of"
        )
    source, out = sharded_corpus(settings), settings.out
    entries = {item.name: getattr(settings, item.name) for item in fields(PrepareSettings) if item.name != "out"}
    if (path := path_of(settings.data)).exists():
        entries["data"] = path.name  # from another folder or machine it has another path
    request = json.loads(
        json.dumps({"format": FORMAT, **entries, "of": source.identity})
    )  # as the folder's file has it
    check_writable(out)
    next(source.files[0](), None)  # a column that is missing, or
    named = _named(settings)  # a tokenizer, is found before anything is written
    with undone_on(out, MixlnError):
        return _prepared(out, source, settings, request, named)


def _prepared(out: Path, source: ShardedCorpus, settings: PrepareSettings, request: dict[str, Any], named: Any) -> Text:
    tokens = settings.tokens
    run = RunFolder(out, PREPARED)
    if run.state is State.FOREIGN:
        raise run.foreign()
    with run.locked(WAIT), undone_on(out, MixlnError):
        _claim(run, request)
        if _is_whole(out):
            return Text.load(out)
        _begin(out, source, settings, tokens, named)
    tokenizer = Text.tokenizer_in(out)
    kept_out = frozenset(held_out_texts(out))
    order = list(range(len(source.files)))
    random.Random(len(order)).shuffle(order)
    began = said = time.monotonic()
    work, sizes = 0, {}
    while missing := _missing(out, order, tokens, sizes):
        moved = False
        for file in missing:
            try:
                if not (lock := _arrow(out, file).with_suffix(".lock")).exists():
                    note(lock)
                with FileLock(lock, timeout=0):
                    if not _arrow(out, file).is_file():
                        packed = _pack_file(out, source, file, tokenizer, settings.sequence_length, tokens, kept_out)
                        work, moved = work + packed, True
                        if packed:
                            keep_new()
            except Timeout:  # another process is at it
                continue
            if time.monotonic() - said >= NEWS:
                said = time.monotonic()
                log.info(_course(sum(sizes.values()), tokens, work / (said - began)))
            break
        if not moved:
            time.sleep(PATIENCE)
    with run.locked(WAIT):
        if not _is_whole(out):
            _finish(out, source, settings, _used(order, tokens, sizes), tokenizer, request)
    return Text.load(out)


def prepare_stream(settings: TextSettings, *, vocabulary_size: int, tokens: int, cache: Path) -> Text:
    """What a training on a stream needs beforehand: a tokenizer, what is held out, and the word frequencies of a sample.

    :param vocabulary_size: tokens of the BPE to train where `settings` names no tokenizer.
    :param tokens: training tokens that will be seen, which decide how much is held out.
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
    """The text in a folder, if it fits the settings.

    :raises DataError: if it is not whole, or was packed otherwise.
    """
    if not (folder / INFO.file).is_file():
        raise DataError(f"data {folder} is not prepared to its end; run its mixln data prepare again")
    request = _request(folder)
    if (length := request.get("sequence_length")) != settings.sequence_length:
        raise DataError(
            f"data {folder} is packed to sequences of {length} tokens; use --sequence-length {length}, or prepare it again"
        )
    if settings.tokenizer not in (None, request.get("tokenizer")) or settings.vocabulary_size is not None:
        raise DataError(f"data {folder} has been tokenized already; leave out --tokenizer and --vocabulary-size")
    return Text.load(folder).open()


def _is_whole(out: Path) -> bool:
    """Whether a text is prepared to its end; pieces of another size than they had then are deleted, to be made again."""
    try:
        files = INFO.read(out / INFO.file).files
    except (OSError, ValueError):
        return False
    pieces = {name: size for name, size in files.items() if re.fullmatch(r"\d{5,}\.(arrow|npy)", name)}
    wrong = [name for name, size in pieces.items() if wrong_size(out / TRAIN / name, size)]
    for name in wrong:
        (out / TRAIN / name).unlink(missing_ok=True)
    return pieces == files and not wrong and (out / TOKENIZER).is_file() and (out / HELD_OUT_ROWS).is_dir()


def _course(ready: int, tokens: int, speed: float) -> str:
    """How far it is; `speed` is that of this process alone, tokens a second."""
    left = f", at most {max(0, tokens - ready) / speed / 60 + 1:.0f} minutes left" if speed else ""
    return f"{ready:,} of {tokens:,} tokens, {speed:,.0f} tokens/s{left}"


def _claim(run: RunFolder[TextInfo], request: Request) -> None:
    """Makes the folder this request's, if it is free; it is locked."""
    if (there := run.request()) is None:
        run.begin(request)
        return
    now, before = ({**entries, "of": None} for entries in (request, there))
    if found := difference({name: before.get(name) for name in now}, now):
        raise run.another(found)
    if there.get("of") != request["of"]:
        _renew(run, there.get("of"), request["of"])
        run.begin(request)


def _request(folder: Path) -> Request:
    """What was asked for in a folder.

    :raises DataError: if that is corrupt.
    """
    try:
        return PREPARED.request.read(folder / REQUEST)
    except (OSError, ValueError) as error:
        raise DataError(unreadable(folder / REQUEST, error, AGAIN)) from error


def _renew(run: RunFolder[TextInfo], before: Any, now: list[Any]) -> None:
    """Deletes what was made of files that have been mended since: their pieces, and what is held out.

    :raises StoreError: if they are other files, or another process is at one. :class:`DataError` if the tokenizer is gone by which
        the other pieces were packed.
    """
    out = run.folder
    if any((out / TRAIN).glob("*.arrow")) and not (out / TOKENIZER).is_file():
        raise corrupt(out, f"{TOKENIZER} is missing, and the text has changed since")
    if not isinstance(before, list) or any(isinstance(entry, str) for entry in (*before, *now)):
        raise run.another("its files are others", "choose another --out")
    if [entry[0] for entry in before] != [entry[0] for entry in now]:
        raise run.another("its files are others", "choose another --out")
    for file in (number for number, (old, new) in enumerate(zip(before, now, strict=True)) if old != new):
        try:
            with FileLock(_arrow(out, file).with_suffix(".lock"), timeout=0):
                _arrow(out, file).unlink(missing_ok=True)
        except Timeout as error:
            raise StoreError(
                f"out {out}: {now[file][0]} has changed while another process reads it; wait for it"
            ) from error
    for counted in (out / TRAIN).glob("?????.json"):  # other documents are held out now
        counted.unlink(missing_ok=True)
    (out / INFO.file).unlink(missing_ok=True)
    _clear_held_out(out / HELD_OUT_ROWS)


def _clear_held_out(folder: Path) -> None:
    """Deletes the held-out sequences; where something else lies among them too, the folder gets another name."""
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
    """Writes the tokenizer and what is held out, once.

    :param tokenizer: the one to use; `None` to train one of so many tokens as the settings or `vocabulary` say.
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
    """The beginning of the text, to train a tokenizer on.

    :raises DataError: if all of it is held out.
    """
    seen = 0
    for file in range(len(source.files)):
        for text in source.train(file):
            yield text
            seen += len(text)
            if seen >= SAMPLE:
                return
    if not seen:
        raise DataError(f"data {source.description} has no document beside those held out; give more text")


def _pack_file(
    out: Path, source: ShardedCorpus, file: int, tokenizer: Any, length: int, tokens: int, held_out: frozenset[str]
) -> int:
    """Packs one file, at most `tokens` of it; returns its tokens. What remains of its last sequence is left out.

    :param held_out: documents that are held out: those that stand in the file too are noted.
    """
    import pyarrow as pa

    schema = pa.schema({"input_ids": pa.list_(pa.int32())})
    target, counts = _arrow(out, file), np.zeros(len(tokenizer), dtype=np.int64)
    unfinished = target.with_suffix(".saving")
    note(unfinished)
    rest, packed = np.array([tokenizer.eos_token_id]), 0
    equal: set[str] = set()

    def noted(texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            if text in held_out:
                equal.add(_digest(text))
            yield text

    with pa.OSFile(str(unfinished), "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for ids in _encoded(noted(source.train(file)), tokenizer):
            rest = np.concatenate([rest, ids])
            whole = min(len(rest) // length, (tokens - packed + length - 1) // length) * length
            rows, rest = rest[:whole], rest[whole:]
            if whole:
                values = pa.array(rows.astype(np.int32))
                offsets = pa.array(np.arange(0, whole + 1, length, dtype=np.int32))
                writer.write_batch(pa.record_batch([pa.ListArray.from_arrays(offsets, values)], schema=schema))
                counts += np.bincount(rows, minlength=len(counts))
                packed += whole
            if packed >= tokens:
                break
    fsync(unfinished)
    write_atomic(target.with_suffix(".npy"), _npy(counts))
    # Not flushed: it is no part of the text.
    note(target.with_suffix(".json"))
    target.with_suffix(".json").write_text(EQUAL.text(DuplicateDocuments(digests=tuple(sorted(equal)))))
    os.rename(unfinished, target)
    note(target)
    fsync(target.parent)
    return packed


def _encoded(texts: Iterator[str], tokenizer: Any) -> Iterator[np.ndarray]:
    """The tokens of many documents at a time, each with an end of text."""
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
    """Held-out documents that stand in the training files too; `None` if a file was packed without counting them."""
    try:
        digests = {digest for file in files for digest in EQUAL.read(_arrow(out, file).with_suffix(".json")).digests}
    except (OSError, ValueError):
        return None
    return sum(_digest(text) in digests for text in held_out_texts(out))


def _missing(out: Path, order: list[int], tokens: int, sizes: dict[int, int]) -> list[int]:
    """The files that are to be done next, in their order; empty when there is enough, or no more.

    :param sizes: file → tokens, of those that are known to be done; the others that are done are added.
    """
    for file in order:
        if file not in sizes and _arrow(out, file).is_file():
            sizes[file] = int(_counts(out, file).sum())
    if sum(sizes[file] for file in _used(order, tokens, sizes)) >= tokens:
        return []
    return [file for file in order if file not in sizes]


def _used(order: list[int], tokens: int, sizes: dict[int, int]) -> list[int]:
    """The files, done one after the other from the first, that reach so many tokens or end before one that is not done."""
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
    """What is known of a text whose held-out part lies in a folder.

    :param counts: how often each token occurs in its training part, or in a sample of it.
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
