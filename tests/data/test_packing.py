"""Packing into sequences, what is known of the text afterwards, and the cache."""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from mixln.data.documents import corpus
from mixln.data.packing import IGNORED
from mixln.data.settings import TextSettings
from mixln.data.text import Text
from tests import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packing")


@pytest.fixture(scope="module")
def text(folder) -> Text:
    return small.prepared(folder)


@pytest.fixture(scope="module")
def documents(folder, text):
    return corpus(TextSettings(data=str(folder / "text"), held_out=0.1), tokens=0)


def stream(text: Text, documents: list[str]) -> list[int]:
    """The end of text, then each document and the end of text."""
    tokenizer = text.tokenizer()
    ids = [tokenizer.eos_token_id]
    for document in documents:
        ids += [*tokenizer.encode(document, add_special_tokens=False), tokenizer.eos_token_id]
    return ids


def test_training_rows_in_a_row_are_the_beginning_of_the_stream(text, documents):
    rows = text.train[:]["input_ids"]
    assert rows.shape[1] == small.LENGTH
    expected = stream(text, documents.train)
    assert rows.flatten().tolist() == expected[: rows.numel()]
    assert len(expected) - rows.numel() < small.LENGTH


def test_an_end_of_text_stands_around_every_document(text, documents):
    tokenizer = text.tokenizer()
    parts = tokenizer.decode(text.train[:]["input_ids"].flatten()).split(tokenizer.eos_token)
    assert parts[0] == ""
    assert parts[1:-1] == documents.train[: len(parts) - 2]
    assert len(parts) - 2 >= len(documents.train) - 1


def test_held_out_targets_are_the_held_out_stream(text, documents):
    targets = text.held_out[:]["labels"][:, 1:].flatten()
    assert targets[targets != IGNORED].tolist() == stream(text, documents.held_out)[1:]


def test_counts_of_the_text(text, documents):
    info = text.info
    assert info.documents == len(documents.train) == 36
    assert info.held_out_documents == len(documents.held_out) == 4
    assert info.train_tokens == text.train[:]["input_ids"].numel()
    assert info.held_out_tokens == len(stream(text, documents.held_out)) - 1
    assert info.held_out_bytes == sum(len(document.encode()) for document in documents.held_out)


def test_bytes_are_counted_not_characters(tmp_path):
    info = small.prepared(tmp_path, texts=["äöü " * 60] * 10).info
    assert info.held_out_bytes == 7 * 60


def test_unigram_loss_by_hand(text, documents):
    counts = Counter(stream(text, documents.train))
    total = counts.total() + text.info.vocabulary_size
    targets = stream(text, documents.held_out)[1:]
    expected = -sum(math.log((counts[token] + 1) / total) for token in targets) / len(targets)
    assert text.info.unigram_loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("tokens", "size", "expected"), [(10, 40, 1.0), (40, 40, 4.0), (30, 60, 2.0)])
def test_bits_per_byte_by_hand(text, tokens, size, expected):
    info = replace(text.info, held_out_tokens=tokens, held_out_bytes=size)
    assert info.bits_per_byte(4 * math.log(2)) == pytest.approx(expected, rel=1e-15)


def times(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_second_call_reads_the_cache(tmp_path):
    first = small.prepared(tmp_path)
    written = times(tmp_path)
    second = small.prepared(tmp_path)
    assert second == first
    assert times(tmp_path) == written


def test_the_cache_is_read_and_not_made_anew(tmp_path):
    first = small.prepared(tmp_path)
    mark = first.info.unigram_loss + 1
    info = first.folder / "info.json"
    info.write_text(info.read_text().replace(repr(first.info.unigram_loss), repr(mark)))
    assert small.prepared(tmp_path).info.unigram_loss == mark


def change_text(folder):
    (folder / "text" / "000.txt").write_text("another text " * 40)
    return small.prepared(folder)


CHANGES = {
    "text": change_text,
    "sequence length": lambda folder: small.prepared(folder, sequence_length=small.LENGTH + 1),
    "vocabulary": lambda folder: small.prepared(folder, vocabulary_size=280),
    "held-out share": lambda folder: small.prepared(folder, held_out=0.2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_the_sequences_gives_another_folder(change, tmp_path):
    first = small.prepared(tmp_path)
    before = first.train[:]["input_ids"].tolist()
    second = change(tmp_path)
    assert second.folder != first.folder
    assert second.info.fingerprint != first.info.fingerprint
    assert second.train[:]["input_ids"].tolist() != before
    assert Text.load(first.folder).train[:]["input_ids"].tolist() == before


def test_the_same_documents_from_another_place_share_the_cache(tmp_path):
    first = small.prepared(tmp_path / "a")
    shutil.copytree(tmp_path / "a" / "cache", tmp_path / "b" / "cache")
    written = times(tmp_path / "b" / "cache")
    assert small.prepared(tmp_path / "b").info == first.info
    assert times(tmp_path / "b" / "cache") == written


def test_a_half_written_cache_is_not_read(tmp_path):
    whole = small.prepared(tmp_path)
    expected = whole.train[:]["input_ids"].tolist()
    left = whole.folder.parent / f".{whole.folder.name}.cut-off"
    os.rename(whole.folder, left)
    (left / "info.json").unlink()
    shutil.rmtree(left / "held_out")
    again = small.prepared(tmp_path)
    assert again.folder == whole.folder
    assert again.info == whole.info
    assert again.train[:]["input_ids"].tolist() == expected
    assert len(again.held_out) > 0


def test_tokenizers_with_different_ends_of_text_do_not_share_the_cache(tmp_path):
    tokenizer = small.prepared(tmp_path).tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    separators = []
    for end in ("<|endoftext|>", "<|turn|>"):
        tokenizer.eos_token = end
        tokenizer.save_pretrained(tmp_path / end)
        text = small.prepared(tmp_path, tokenizer=str(tmp_path / end))
        separators.append(tokenizer.convert_ids_to_tokens(text.train[0]["input_ids"][0].item()))
    assert separators == ["<|endoftext|>", "<|turn|>"]
