"""A stream deals every document out once an epoch, to however many readers, and goes on exactly where it was."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mixln.data import stream
from mixln.data.parts import parts
from mixln.data.settings import TextSettings
from mixln.data.stream import POSITION, Position, Stream
from mixln.errors import DataError
from tests import decoders

LENGTH = 7


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 4)


def folder(path: Path, files: int, documents: int = 11) -> TextSettings:
    """Files of documents that each hold a number of their own, some of them empty."""
    path.mkdir()
    for file in range(files):
        rows = [{"text": f"{file * 100 + number} " * (1 + number % 3)} for number in range(documents + file)]
        rows.insert(2, {"text": " "})
        (path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextSettings(data=str(path), held_out=0.1, sequence_length=LENGTH)


def streamed(settings: TextSettings, *, rank: int = 0, size: int = 1, **more: Any) -> Stream:
    return Stream(parts(settings), decoders.tokenizer(), length=LENGTH, seed=5, rank=rank, size=size, **more)


def epoch(reader: Stream, number: int = 0) -> list[str]:
    """The documents that a reader takes in one epoch, in its order."""
    found: list[str] = []
    for ids, place in reader._documents(reader.rank, reader.size, Position()):
        if place.epoch > number:
            return found
        if place.epoch == number:
            found.append(reader.tokenizer.decode(ids[:-1]))
    raise AssertionError("a stream has no end")


@pytest.mark.parametrize(("files", "size"), [(1, 1), (3, 1), (3, 2), (3, 3), (1, 2), (2, 3)])
def test_every_document_is_seen_once_an_epoch(tmp_path, files, size):
    settings = folder(tmp_path / "data", files)
    source = parts(settings)
    every = Counter(text for file in range(files) for text in source.train(file))
    held_out = Counter(source.held_out(10**6))
    there = Counter(text for read in source.files for text in read() if text.strip())
    assert every + held_out == there
    assert held_out
    for number in (0, 1):
        seen = Counter(text for rank in range(size) for text in epoch(streamed(settings, rank=rank, size=size), number))
        assert seen == every


def test_no_token_is_lost_between_two_sequences(tmp_path):
    reader = streamed(folder(tmp_path / "data", 2))
    rows = torch.cat([row["input_ids"] for row in islice(reader, 100)])
    documents = (ids for ids, _ in reader._documents(0, 1, Position()))
    tokens = torch.cat([torch.from_numpy(ids) for ids in islice(documents, 200)])
    assert torch.equal(rows, tokens[: len(rows)])


def test_order_is_shuffled_and_another_in_each_epoch(tmp_path):
    settings = folder(tmp_path / "data", 2)
    reader = streamed(settings)
    one, two = epoch(reader, 0), epoch(reader, 1)
    assert sorted(one) == sorted(two)
    assert one != two != sorted(two)
    assert epoch(streamed(settings), 0) == one


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("cut", [1, 2, 7, 20, 33])
def test_goes_on_exactly_where_it_was(tmp_path, files, cut):
    settings = folder(tmp_path / "data", files)
    rows = list(islice(streamed(settings), 60))
    worker, position = Position.from_list(rows[cut - 1][POSITION].tolist())
    again = list(islice(streamed(settings, positions={worker: position}), 60 - cut))
    for row, other in zip(rows[cut:], again, strict=True):
        assert torch.equal(row["input_ids"], other["input_ids"])
        assert torch.equal(row[POSITION], other[POSITION])


def test_workers_share_what_their_process_reads_and_go_on_each_where_it_was(tmp_path):
    settings = folder(tmp_path / "data", 3)

    def loader(positions: dict[int, Position]) -> DataLoader[Any]:
        reader = streamed(settings, positions=positions)
        return DataLoader(reader, batch_size=2, num_workers=2, multiprocessing_context="fork")

    whole = [row for row, _ in zip(loader({}), range(8), strict=False)]
    positions = {}
    for batch in whole[:4]:
        worker, position = Position.from_list(batch[POSITION][-1].tolist())
        positions[worker] = position
    again = [row for row, _ in zip(loader(positions), range(4), strict=False)]
    for row, other in zip(whole[4:], again, strict=True):
        assert torch.equal(row["input_ids"], other["input_ids"])


def test_reader_without_a_document_says_so(tmp_path):
    settings = folder(tmp_path / "data", 1, documents=1)
    with pytest.raises(DataError, match="has no documents for reader 4 of 9"):
        next(iter(streamed(settings, rank=3, size=9)))
