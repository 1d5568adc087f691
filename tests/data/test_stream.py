"""A stream is one order of sequences, whoever reads it: every document once an epoch, and from any of them on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

from mixln.data import stream
from mixln.data.settings import TextSettings
from mixln.data.sharded_corpus import ShardedCorpus, sharded_corpus
from mixln.data.stream import POSITION, Position, TokenStream
from mixln.errors import DataError
from tests import decoders

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # on two cores
LENGTH = 7
SHARES = [(1, 0), (1, 2), (2, 0), (2, 3), (8, 0)]
"""Processes, and workers of each."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 4)
    monkeypatch.setattr(stream, "PARCEL", 3)


def folder(path: Path, files: int, documents: int = 11) -> TextSettings:
    """Files of documents that each hold a number of their own, some of them empty."""
    path.mkdir()
    for file in range(files):
        rows = [{"text": f"{file * 100 + number} " * (1 + number % 3)} for number in range(documents + file)]
        rows.insert(2, {"text": " "})
        (path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextSettings(data=str(path), held_out=0.1, sequence_length=LENGTH)


def streamed(settings: TextSettings, *, seed: int = 5, **share: Any) -> TokenStream:
    return TokenStream(sharded_corpus(settings), decoders.tokenizer(), length=LENGTH, seed=seed, **share)


def read(settings: TextSettings, count: int, *, size: int = 1, **more: Any) -> tuple[Tensor, list[list[int]]]:
    """The first `count` sequences of all processes together, (count, T), and the positions after each `size` of them."""
    readers = [iter(streamed(settings, rank=rank, size=size, **more)) for rank in range(size)]
    rows, positions = [], []
    for _ in range(count // size):
        step = [next(reader) for reader in readers]
        rows += [row["input_ids"] for row in step]
        (position,) = {tuple(row[POSITION].tolist()) for row in step}  # all say the same
        positions.append(list(position))
    return torch.stack(rows), positions


def training_part(source: ShardedCorpus) -> list[str]:
    return [text for file in range(len(source.files)) for text in source.train(file)]


def documents(rows: Tensor) -> list[str]:
    """The whole documents in sequences that follow one another."""
    tokenizer = decoders.tokenizer()
    return tokenizer.decode(rows.flatten()).split(tokenizer.eos_token)[:-1]


def test_every_document_is_held_out_or_trained_on(tmp_path):
    source = sharded_corpus(folder(tmp_path / "data", 3))
    held_out = source.held_out(10**6)
    there = Counter(text for read in source.files for text in read() if text.strip())
    assert Counter(training_part(source)) + Counter(held_out) == there
    assert held_out


@pytest.mark.parametrize(("size", "workers"), SHARES)
@pytest.mark.parametrize("files", [1, 3, 9])
def test_every_document_is_seen_once_an_epoch_by_all_processes_together(tmp_path, files, size, workers):
    settings = folder(tmp_path / "data", files)
    every = training_part(sharded_corpus(settings))
    tokens = sum(len(decoders.tokenizer()(text)["input_ids"]) + 1 for text in every)
    rows, _ = read(settings, -(-2 * tokens // LENGTH // size) * size, size=size, workers=workers)
    seen = documents(rows)
    assert len(seen) >= 2 * len(every) - 1
    assert Counter(seen[: len(every)]) == Counter(every)
    assert max(Counter(seen[len(every) : 2 * len(every)]).values()) == 1


@pytest.mark.parametrize(("size", "workers"), SHARES)
def test_the_order_depends_on_neither_processes_nor_workers(tmp_path, size, workers):
    settings = folder(tmp_path / "data", 3)
    assert torch.equal(read(settings, 80, size=size, workers=workers)[0], read(settings, 80)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_hub_data_are_as_the_files_that_they_are(tmp_path, monkeypatch, workers):
    """A folder of files stands in for the hub."""
    settings = folder(tmp_path / "data", 3)
    builder = datasets.load_dataset_builder("json", data_files=[f"{tmp_path}/data/{file}.jsonl" for file in range(3)])
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config: builder)
    there = replace(settings, data="someone/texts")
    assert torch.equal(read(there, 80, workers=workers)[0], read(settings, 80)[0])


def test_no_token_is_lost_between_two_sequences(tmp_path):
    reader = streamed(folder(tmp_path / "data", 2))
    rows = torch.cat([row["input_ids"] for row in islice(reader, 100)])
    tokens = torch.cat([torch.from_numpy(ids) for ids, _ in islice(reader._tokenized(), 200)])
    assert torch.equal(rows, tokens[: len(rows)])


def test_order_is_shuffled_and_another_with_each_epoch_and_seed(tmp_path):
    settings = folder(tmp_path / "data", 2)
    every = training_part(sharded_corpus(settings))
    seen = documents(read(settings, 200)[0])
    one, two = seen[: len(every)], seen[len(every) : 2 * len(every)]
    assert sorted(one) == sorted(two)
    assert every != one != two
    assert documents(read(settings, 200, seed=6)[0])[: len(every)] != one


@pytest.mark.long
@pytest.mark.parametrize(("size", "workers"), SHARES)
@pytest.mark.parametrize("cut", [8, 24, 40, 48])
@pytest.mark.parametrize("files", [1, 3])
def test_goes_on_exactly_where_it_was_with_any_number_of_readers(tmp_path, files, cut, size, workers):
    settings = folder(tmp_path / "data", files)
    whole, positions = read(settings, 80)
    begin = Position.from_tensor(torch.tensor(read(settings, cut, size=2)[1][-1]))
    rows, again = read(settings, 80 - cut, begin=begin, size=size, workers=workers)
    assert torch.equal(rows, whole[cut:])
    assert again == positions[cut + size - 1 :: size]


def test_goes_on_at_every_sequence(tmp_path):
    settings = folder(tmp_path / "data", 3)
    whole, positions = read(settings, 60)
    for cut, position in enumerate(positions[:-1], 1):
        begin = Position.from_tensor(torch.tensor(position))
        assert torch.equal(read(settings, 1, begin=begin)[0][0], whole[cut])


def test_stream_without_a_document_says_so(tmp_path):
    settings = folder(tmp_path / "data", 1, documents=0)
    with pytest.raises(DataError, match="has no documents to train on; give more text"):
        next(iter(streamed(settings)))


@pytest.mark.parametrize("workers", [0, 2])
def test_mistake_in_the_data_is_one_line_whoever_finds_it(tmp_path, workers):
    settings = folder(tmp_path / "data", 1)
    with (tmp_path / "data" / "0.jsonl").open("a") as file:
        file.write("broken")
    with pytest.raises(DataError, match=r"\Adata .*0.jsonl line 13 is not JSON: .*; correct or remove that line\Z"):
        read(settings, 100, workers=workers)
