"""Files that are traps: what does not end, what leads elsewhere, and what unpacks to more than there is memory."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mixln.data import rows, tokenizer
from mixln.data.documents import corpus
from mixln.data.examples import examples
from mixln.data.preparation import prepare
from mixln.data.rows import read_rows
from mixln.data.settings import MOST_VOCABULARY, CorpusSettings, ExampleSettings, PrepareSettings, TextSettings
from mixln.data.sharded_corpus import sharded_corpus
from mixln.data.shards import prepare_shards
from mixln.data.tokenizer import named_tokenizer, trained_tokenizer
from mixln.errors import DataError, SettingsError
from mixln.normalizers import check_normalizer
from tests import small

NAMES = (".txt", ".jsonl", ".json.gz", ".parquet")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.open(".", os.O_RDONLY)
        try:  # a socket's path must be short
            os.chdir(path.parent)
            opened.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)


IRREGULAR = {
    "a named pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": make_socket,
}


def refusal(data: object) -> str:
    """The line printed about a text, the same for text in memory and text prepared file by file."""
    said = []
    for read in (
        lambda settings: corpus(settings, tokens=10),
        lambda settings: [list(file()) for file in sharded_corpus(settings).files],
    ):
        with pytest.raises(DataError) as caught:
            read(CorpusSettings(data=str(data)))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    return said[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", IRREGULAR)
def test_only_regular_files_are_read(tmp_path, kind, name):
    folder = small.write_folder(tmp_path / "data", small.documents(3))
    IRREGULAR[kind](folder / f"x{name}")
    if kind == "a device":  # also a link that leads out
        assert f"x{name} is a link to /dev/zero, outside {folder}; replace it by a copy" in refusal(folder)
    else:
        assert f"x{name} must be a regular file, got {kind}" in refusal(folder)
    assert f"x{name} must be a regular file, got {kind}" in refusal(folder / f"x{name}")


def test_examples_are_read_from_regular_files_only(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl must be a regular file, got a named pipe"):
        examples(ExampleSettings(data=str(tmp_path / "x.jsonl")), "completions", None, fit=[])


def test_a_link_is_followed_where_it_is_named_or_stays_inside(tmp_path):
    folder = small.write_folder(tmp_path / "data", ["one", "two", "three"])
    (tmp_path / "link.txt").symlink_to(folder / "000.txt")
    assert corpus(CorpusSettings(data=str(tmp_path / "link.txt")), tokens=1).train == ["on"]
    (tmp_path / "here").symlink_to(folder)
    assert len(corpus(CorpusSettings(data=str(tmp_path / "here")), tokens=1).train) == 2
    (folder / "003.txt").symlink_to("000.txt")
    assert len(corpus(CorpusSettings(data=str(folder)), tokens=1).train) == 3
    (folder / "004.txt").symlink_to(tmp_path / "link.txt")
    assert len(corpus(CorpusSettings(data=str(folder)), tokens=1).train) == 4  # at its end it is inside
    (folder / "005.txt").symlink_to(tmp_path / "other.txt")
    assert f"005.txt is a link to {os.path.realpath(tmp_path / 'other.txt')}, outside {folder}" in refusal(folder)
    (folder / "005.txt").unlink()
    (folder / "005.txt").symlink_to("nothing.txt")
    assert "005.txt cannot be read: [Errno 2] No such file or directory" in refusal(folder)
    (folder / "005.txt").unlink()
    (folder / "005.txt").symlink_to("005.txt")
    assert "005.txt" in refusal(folder)


def test_hidden_folders_and_those_of_our_runs_are_no_data(tmp_path):
    folder = small.write_folder(tmp_path / "data", ["one", "two", "three", "four"])
    before = corpus(CorpusSettings(data=str(folder)), tokens=1)
    runs = {
        "runs/default/experiment.json": {"schema": 1, "settings": {}, "grid": {}},
        "trial/trial.json": {"placement": "pre", "learning_rate": 0.001, "seed": 0},
        "tuned/asked.json": {"kind": "finetune", "settings": {}, "seed": 0, "model": "m", "examples": "e"},
        "prepared/request.json": {"format": 2, "of": [], "sequence_length": 16},
        "cache/text/0123/info.json": {"description": "", "fingerprint": ""},
    }
    for name, entries in runs.items():
        path = folder / name
        (path.parent / "deeper").mkdir(parents=True)
        path.write_text(json.dumps(entries))
        (path.parent / "metrics.jsonl").write_text('{"step": 1}\n')
        (path.parent / "deeper" / "a.txt").write_text("not data")
    for hidden in (".ipynb_checkpoints", "deep/.git"):
        (folder / hidden / "inner").mkdir(parents=True)
        (folder / hidden / "000.txt").write_text("one")
        (folder / hidden / "inner" / "000.txt").write_text("one")
    (folder / "deep" / ".hidden.txt").write_text("one")
    after = corpus(CorpusSettings(data=str(folder)), tokens=1)
    assert after == before
    assert len(sharded_corpus(CorpusSettings(data=str(folder))).files) == 4
    for name in runs:  # the user's own files of such names mark nothing
        (folder / name).write_text("[1]")
        (folder / name).parent.joinpath("metrics.jsonl").unlink()
    assert len(corpus(CorpusSettings(data=str(folder)), tokens=1).train) > len(before.train)


def write_gz(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def small_limits(monkeypatch, *, row=1000, unpacked=5000, ratio=2):
    monkeypatch.setattr(rows, "ROW", row)
    monkeypatch.setattr(rows, "UNPACKED", unpacked)
    monkeypatch.setattr(rows, "RATIO", ratio)


@pytest.mark.parametrize("content", [b"x" * 9000, b'{"text": "' + b"x" * 9000 + b'"}\n', b" " * 9000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
def test_a_line_is_bounded(tmp_path, monkeypatch, name, content):
    small_limits(monkeypatch)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    said = refusal(path)
    assert f"{name} line 1 has more than 1,000 characters; split it into several documents, or remove it" in said


@pytest.mark.parametrize("line", [b'{"text": "one two three"}\n', b"\n"])
def test_what_a_gzip_unpacks_to_is_bounded(tmp_path, monkeypatch, line):
    small_limits(monkeypatch)
    path = write_gz(tmp_path / "a.json.gz", line * 9000)
    assert (
        "a.json.gz unpacks to more than 5,000 bytes, the larger of 2 times its size and 5,000; unpack it first"
        in refusal(path)
    )


def test_a_gzip_is_read_no_further_than_is_asked_for(tmp_path, monkeypatch):
    small_limits(monkeypatch)
    path = write_gz(tmp_path / "a.json.gz", b'{"text": "one two three"}\n' * 9000)
    (read,) = sharded_corpus(CorpusSettings(data=str(path))).files
    texts = read()
    assert [next(texts) for _ in range(100)] == ["one two three"] * 100


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize("many", [False, True])
def test_what_a_parquet_unpacks_to_is_bounded(tmp_path, monkeypatch, compression, many):
    """One value that stands in every row is stored once."""
    small_limits(monkeypatch, row=10_000, unpacked=50_000)
    values = (
        pyarrow.array(["x" * 900]).dictionary_encode().take(pyarrow.array([0] * 400)) if many else ["x" * 900] * 400
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet", compression=compression)
    assert "a.parquet unpacks to more than 50,000 bytes, the larger of 2 times its size and 50,000" in refusal(
        tmp_path / "a.parquet"
    )


def test_a_row_of_a_parquet_is_bounded(tmp_path, monkeypatch):
    small_limits(monkeypatch, unpacked=50_000)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["short", "x" * 1001]}), tmp_path / "a.parquet")
    assert "a.parquet row 1 has more than 1,000 characters" in refusal(tmp_path / "a.parquet")
    nested = [[{"content": "x" * 600}, {"content": "x" * 600}]]
    pyarrow.parquet.write_table(pyarrow.table({"messages": nested}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet row 0 has more than 1,000 characters"):
        list(read_rows(tmp_path / "b.parquet"))


def test_the_pages_of_a_parquet_are_bounded_before_they_are_read(tmp_path, monkeypatch):
    small_limits(monkeypatch, row=10**6)
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["x" * 100_000]}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False
    )
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    assert "a.parquet unpacks to more than 5,000 bytes" in refusal(tmp_path / "a.parquet")


def test_usual_files_are_far_from_the_bounds(tmp_path):
    """Equal documents too, which pack best."""
    texts = ["one two three four five six seven"] * 20_000
    lines = "".join(json.dumps({"text": each}) + "\n" for each in texts)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", compression="zstd")
    for path in (write_gz(tmp_path / "a.json.gz", lines.encode()), tmp_path / "a.parquet"):
        assert len(corpus(CorpusSettings(data=str(path)), tokens=1).train) == 19_500


def test_a_txt_is_bounded_by_its_size(tmp_path):
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, 2**40)  # takes no room
    assert (
        "a.txt has more than 1,073,741,824 bytes and is read as one document; split it into several files"
        in refusal(path)
    )
    (tmp_path / "b.jsonl").touch()
    os.truncate(tmp_path / "b.jsonl", 2**40)
    assert "b.jsonl line 1 has more than 16,777,216 characters" in refusal(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_stretch_without_a_break_is_bounded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(rows, "UNBROKEN", 100)
    for stretch, good in (("x" * 90, True), ("x" * 300, False), ("one" + " " * 300 + "two", False)):
        document = "one two three four " * 10 + stretch + " five six seven" * 10
        path = tmp_path / name
        path.write_text(document if name == "a.txt" else json.dumps({"text": document}))
        if good:
            corpus(CorpusSettings(data=str(path)), tokens=1)
        else:
            assert (
                "the 100 characters after the first 200 contain at most one word; insert spaces or line breaks"
                in refusal(path)
            )


def test_long_words_do_not_keep_the_trainer_busy(monkeypatch):
    """A million letters in a row take it an hour."""
    assert len(trained_tokenizer(["a" * 10**6, "one two three"], 300)) <= 300
    monkeypatch.setattr(tokenizer, "WORD", 50)
    plain = trained_tokenizer(small.documents(), 300).backend_tokenizer.to_str()
    spaced = ["。".join("四五六七八" * 3 for _ in range(40))]  # no space, and yet not one word
    for texts in (small.documents(), spaced):
        pre_tokenizer = trained_tokenizer(small.documents(), 300).backend_tokenizer.pre_tokenizer
        assert list(tokenizer._short_words(texts, pre_tokenizer)) == texts
    assert plain == trained_tokenizer(small.documents(), 300).backend_tokenizer.to_str()


def test_a_vocabulary_is_bounded():
    said = "vocabulary-size must be at most 1,000,000"
    with pytest.raises(SettingsError, match=said):
        TextSettings(vocabulary_size=10**12)
    with pytest.raises(SettingsError, match=said):
        PrepareSettings(data="x", out=Path("x"), tokens=10**6, vocabulary_size=MOST_VOCABULARY + 1)
    with pytest.raises(SettingsError, match=said):  # one that a model's file asks for
        trained_tokenizer(["text"], 10**12)
    TextSettings(vocabulary_size=MOST_VOCABULARY)


def replace(looked_for: str, made: str, *, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: looked_for}, "content": made}


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "normalizers": list(steps)}


BOMBS = {
    "long": replace("q", "q" * 10**6),
    "doubling": sequence(*[replace("q", "qq")] * 40),
    "nested": sequence(sequence(*[replace("q", "zz")] + [replace("z", "zz")] * 40)),
    "pattern": sequence(*[replace("[q]", "qq", kind="Regex")] * 40),
    "empty": sequence(*[replace("q*", "qqqq", kind="Regex")] * 10),
    "before": sequence(*[{"type": "Prepend", "prepend": "q" * 1000}] * 10),
    "after a pattern": sequence(replace("[q]", "zz", kind="Regex"), *[replace("z", "zz")] * 40),
    "steps": sequence(*[replace("q", "z")] * 1000),
}
USUAL = {
    "llama": sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),
    "xlm-r": sequence({"type": "NFKC"}, replace(" {2,}", " ", kind="Regex")),
    "clip": sequence({"type": "NFC"}, replace(r"\s+", " ", kind="Regex"), {"type": "Lowercase"}),
    "words": sequence(*[replace(emoji, " smiling face ") for emoji in "🙂🙃😀😁😂"]),
    "none": None,
}


def write_tokenizer(folder: Path, normalizer: dict | None) -> Path:
    tokenizer = trained_tokenizer(small.documents(4), 300)
    tokenizer.save_pretrained(folder)
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**whole, "normalizer": normalizer}))
    return folder


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_normalizer_that_multiplies_a_text_is_refused_before_it_is_loaded(tmp_path, monkeypatch, bomb):
    import transformers

    folder = write_tokenizer(tmp_path / "tokenizer", BOMBS[bomb])
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(
        DataError, match="its normalizer may replace one character by more than 20, or has more than 500 steps"
    ):
        named_tokenizer(str(folder))


@pytest.mark.parametrize("usual", USUAL)
def test_usual_normalizers_are_taken(tmp_path, usual):
    tokenizer = named_tokenizer(str(write_tokenizer(tmp_path / "tokenizer", USUAL[usual])))
    assert len(tokenizer("one two")["input_ids"]) > 1


def test_a_normalizer_of_the_hub_is_looked_at_when_it_is_loaded(tmp_path):
    import tokenizers

    loaded = named_tokenizer(str(write_tokenizer(tmp_path / "tokenizer", None)))
    loaded.backend_tokenizer.normalizer = tokenizers.normalizers.Replace("q", "q" * 1000)
    with pytest.raises(
        DataError, match="tokenizer 'of/the-hub': its normalizer may replace one character by more than 20"
    ):
        check_normalizer("of/the-hub", loaded)


def test_a_name_that_cannot_be_looked_up_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^data a{100} cannot be accessed: File name too long; name another$"):
        corpus(CorpusSettings(data="a" * 5000), tokens=1)


def test_names_of_files_that_cannot_be_printed_are_escaped_in_what_is_stored(tmp_path):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b[31m")))
    folder.mkdir()
    (folder / os.fsdecode(b"\xe9\n.jsonl")).write_text(
        "".join(json.dumps({"text": each}) + "\n" for each in small.documents(60))
    )
    settings = {"data": str(folder), "sequence_length": 16, "vocabulary_size": 300}
    whole = prepare(TextSettings(**settings), vocabulary_size=300, tokens=100, cache=tmp_path / "cache")
    assert whole.info.description == "caf\\xe9\\n\\x1b[31m (local)"
    for _ in range(2):
        made = prepare_shards(PrepareSettings(out=tmp_path / "out", tokens=1000, **settings))
        assert made.info.description == "caf\\xe9\\n\\x1b[31m (local, 1 files)"
