"""Which documents of many files are held out: the share asked for, spread over files and documents, and none lost."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.data.preparation import prepare
from mixln.data.settings import PrepareSettings, TextSettings
from mixln.data.sharded_corpus import ShardedCorpus
from mixln.data.shards import prepare_shards
from mixln.data.text import Text
from mixln.errors import DataError
from tests import small


def numbered(files: int, documents: int, share: float) -> ShardedCorpus:
    """Files of documents that say where they stand."""
    texts = [[f"{file} {number}" for number in range(documents)] for file in range(files)]
    readers = tuple(lambda file=file: iter(file) for file in texts)
    return ShardedCorpus(description="numbered", identity=(), files=readers, validation=None, share=share)


def held_out(source: ShardedCorpus) -> list[tuple[int, int]]:
    """File and number of every document that is held out."""
    file_and_number = (text.split() for text in source.held_out(10**9))
    return [(int(file), int(number)) for file, number in file_and_number]


@given(files=st.integers(1, 400), documents=st.integers(1, 100), share=st.floats(0.01, 0.49))
def test_about_the_share_is_held_out_and_the_rest_trained_on(files, documents, share):
    source = numbered(files, documents, share)
    found = held_out(source)
    assert found
    assert abs(len(found) - share * files * documents) <= 4
    train = [text for file in range(files) for text in source.train(file)]
    every = [f"{file} {number}" for file in range(files) for number in range(documents)]
    assert Counter(train + [f"{file} {number}" for file, number in found]) == Counter(every)


@pytest.mark.parametrize(("files", "documents"), [(400, 1), (40, 10), (1, 400)])
def test_it_is_spread_evenly(files, documents):
    places = [file * documents + number for file, number in held_out(numbered(files, documents, 0.025))]
    assert len(places) == pytest.approx(10, abs=2)
    assert max(later - earlier for earlier, later in pairwise(places)) < 100


def write_jsonl(folder: Path, texts: list[str]) -> Path:
    """Files of ten documents."""
    folder.mkdir()
    for file in range(len(texts) // 10):
        rows = [json.dumps({"text": text}) for text in texts[file * 10 : file * 10 + 10]]
        (folder / f"{file:03}.jsonl").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("write", [small.write_folder, write_jsonl])
def test_many_small_files_are_prepared_and_streamed_at_the_default_share(write, tmp_path):
    data = str(write(tmp_path / "data", small.documents(400, 20)))
    shards = prepare_shards(
        PrepareSettings(data=data, out=tmp_path / "out", tokens=4096, sequence_length=16, vocabulary_size=300)
    )
    assert shards.info.held_out_documents == pytest.approx(10, abs=2)
    streamed = streaming(data, tmp_path)
    assert streamed.info.held_out_documents == shards.info.held_out_documents


def test_of_a_single_document_nothing_is_left_to_train_on(tmp_path):
    data = small.write_folder(tmp_path / "data", small.documents(1))
    with pytest.raises(DataError, match="has no document except the held-out ones; give more text"):
        streaming(str(data), tmp_path)


def streaming(data: str, folder: Path) -> Text:
    settings = TextSettings(data=data, streaming=True, sequence_length=16)
    return prepare(settings, vocabulary_size=300, tokens=4096, cache=folder / "cache")
