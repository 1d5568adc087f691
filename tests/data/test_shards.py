"""A text prepared file by file is whole, the same however many processes did it and however often they were killed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from mixln.cli import main
from mixln.data.preparation import prepare
from mixln.data.settings import PrepareSettings, TextSettings
from mixln.data.sharded_corpus import sharded_corpus
from mixln.data.shards import prepare_shards
from mixln.data.text import Text
from mixln.errors import DataError, StoreError
from tests import small

FILES = 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Compressed JSON lines in several files, as C4 comes."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = small.documents(240, 40, seed=1)  # no two alike
    for file in range(FILES):
        rows = "".join(json.dumps({"text": text, "url": "none"}) + "\n" for text in texts[file::FILES])
        (folder / f"c4-train.{file:05}-of-{FILES:05}.json.gz").write_bytes(gzip.compress(rows.encode()))
    return folder


def settings(corpus: Path, out: Path, **changes) -> PrepareSettings:
    chosen = {"tokens": 100_000, "sequence_length": 16, "vocabulary_size": 300, "held_out": 0.1, **changes}
    return PrepareSettings(data=str(corpus), out=out, **chosen)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Text:
    return prepare_shards(settings(corpus, tmp_path_factory.mktemp("whole") / "text"))


def rows(text: Text) -> list[list[int]]:
    return [row["input_ids"].tolist() for row in text.train]


def test_holds_every_document_once_in_its_order(corpus, whole):
    source, tokenizer = sharded_corpus(settings(corpus, Path("unused"))), whole.tokenizer()
    tokens = [token for row in rows(whole) for token in row]
    complete = {text for text in tokenizer.decode(tokens).split(tokenizer.eos_token) if text}
    texts = [list(source.train(file)) for file in range(FILES)]
    order = [int(name.removesuffix(".arrow")) for name in whole.info.files]
    assert sorted(order) == list(range(FILES)) != order
    for file in texts:
        assert set(file[:-1]) <= complete  # the end of a file may not fill a sequence
    assert not complete & set(source.held_out(10**6))
    assert whole.info.train_tokens == len(rows(whole)) * 16
    assert whole.info.documents == sum(row.count(tokenizer.eos_token_id) for row in rows(whole))


def test_info_is_that_of_a_text_prepared_in_memory(corpus, whole, tmp_path):
    """Up to the ends of files and to where the held-out documents lie."""
    text = prepare(
        TextSettings(data=str(corpus), held_out=0.1, sequence_length=16, tokenizer=str(whole.folder / "tokenizer")),
        vocabulary_size=300,
        tokens=100_000,
        cache=tmp_path,
    )
    assert whole.info.train_tokens == pytest.approx(text.info.train_tokens, rel=0.02)
    assert whole.info.held_out_documents == text.info.held_out_documents
    assert whole.info.unigram_loss == pytest.approx(text.info.unigram_loss, rel=0.02)


def test_takes_no_more_files_than_the_tokens_need(corpus, whole, tmp_path):
    some = prepare_shards(settings(corpus, tmp_path / "text", tokens=2500))
    assert 2500 <= some.info.train_tokens < 5000
    assert list(some.info.files) == list(whole.info.files)[: len(some.info.files)]
    assert len(list((tmp_path / "text" / "train").glob("*.arrow"))) == len(some.info.files)


def test_what_is_done_is_not_done_again(corpus, whole, tmp_path):
    first = prepare_shards(settings(corpus, tmp_path / "text"))
    (first.folder / "info.json").unlink()
    gone = first.folder / "train" / list(first.info.files)[2]
    gone.unlink()
    times = {name: (first.folder / "train" / name).stat().st_mtime_ns for name in first.info.files if name != gone.name}
    again = prepare_shards(settings(corpus, tmp_path / "text"))
    assert rows(again) == rows(whole)
    assert times == {name: (again.folder / "train" / name).stat().st_mtime_ns for name in times}
    assert again.info == whole.info


@pytest.mark.long
def test_two_processes_one_of_them_killed_leave_the_same_text(corpus, whole, tmp_path):
    wanted = settings(corpus, tmp_path / "text")
    command = [sys.executable, "-m", "mixln", "data", "prepare", "--data", wanted.data, "--out", str(wanted.out)]
    command += ["--tokens", "100000", "--sequence-length", "16", "--vocabulary-size", "300", "--held-out", "0.1"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(wanted.out.glob("train/*")) and processes[0].poll() is None:
        time.sleep(0.001)
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.communicate(timeout=60)
    assert processes[1].returncode == 0
    text = prepare_shards(wanted)
    assert rows(text) == rows(whole)
    assert text.info == whole.info


def test_a_comparison_reads_it_by_its_folder(whole, tmp_path):
    text = prepare(
        TextSettings(data=str(whole.folder), sequence_length=16), vocabulary_size=999, tokens=100, cache=tmp_path
    )
    assert text == whole
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_length": 32}, "is packed to sequences of 16 tokens; use --sequence-length 16"),
        ({"sequence_length": 16, "vocabulary_size": 400}, "is already tokenized; omit --tokenizer"),
    ],
)
def test_another_packing_is_refused(whole, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        prepare(TextSettings(data=str(whole.folder), **change), vocabulary_size=1, tokens=9, cache=tmp_path)


def test_another_request_does_not_mix_with_it(corpus, whole, tmp_path):
    here = settings(corpus, whole.folder)
    with pytest.raises(StoreError, match=r"holds another prepared text: tokens was 100000, now 90000"):
        prepare_shards(replace(here, tokens=90_000))
    (tmp_path / "mine.txt").write_text("hands off")
    with pytest.raises(StoreError, match="is not empty and holds no prepared text"):
        prepare_shards(replace(here, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_process_killed_in_its_first_moment_leaves_is_no_obstacle(corpus, whole, tmp_path):
    left = [tmp_path / ".lock", tmp_path / ".request.json.mixln-0123456789ab"]
    for path in left:
        path.write_text("{")
    assert rows(prepare_shards(settings(corpus, tmp_path))) == rows(whole)
    assert not left[1].exists()


def test_hub_data_of_another_commit_does_not_mix_with_it(corpus, tmp_path, monkeypatch):
    """A folder of files stands in for the hub."""
    builder = datasets.load_dataset_builder("json", data_files=[str(path) for path in sorted(corpus.iterdir())])
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config: builder)
    wanted = replace(settings(corpus, tmp_path / "text"), data="someone/texts")
    first = prepare_shards(wanted)
    assert prepare_shards(wanted) == first
    builder.hash = "a later commit"
    with pytest.raises(StoreError, match="its files are different"):
        prepare_shards(wanted)


def test_unfinished_text_is_not_trained_on(corpus, tmp_path):
    folder = prepare_shards(settings(corpus, tmp_path / "text")).folder
    (folder / "info.json").unlink()
    with pytest.raises(DataError, match="is incomplete; run its mixln data prepare again"):
        prepare(TextSettings(data=str(folder), sequence_length=16), vocabulary_size=1, tokens=9, cache=tmp_path)


def test_command_says_what_there_is_now(corpus, tmp_path, capsys):
    out = tmp_path / "text"
    arguments = ["data", "prepare", "--data", str(corpus), "--vocabulary-size", "300", "--tokens", "1000"]
    assert main([*arguments, "--out", str(out), "--sequence-length", "16"]) == 0
    assert f"train with: --data {out} --sequence-length 16" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "x"), "--sequence-length", "2000"]) == 2
    assert "tokens must be at least one sequence of 2000, got 1000" in capsys.readouterr().err
    cut = corpus.parent / "cut.json.gz"
    cut.write_bytes((next(corpus.iterdir())).read_bytes()[:200])
    assert main(["data", "prepare", "--data", str(cut), "--tokens", "9999", "--out", str(tmp_path / "y")]) == 2
    assert "cut.json.gz cannot be read" in capsys.readouterr().err


def test_a_file_that_is_mended_costs_no_other(whole, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    texts = small.documents(240, 40, seed=1)
    for file in range(FILES):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[file::FILES])
        (folder / f"{file}.jsonl").write_text(lines)

    def asked(out: Path) -> PrepareSettings:
        return settings(folder, out, tokenizer=str(whole.folder / "tokenizer"), vocabulary_size=None)

    def pieces() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").glob("*.arrow")}

    prepare_shards(asked(tmp_path / "out"))
    before = pieces()
    with (folder / "3.jsonl").open("a") as file:
        file.write('{"text": \n')
    with pytest.raises(DataError, match=r"3\.jsonl line 41 is not JSON: .*; correct or remove that line"):
        prepare_shards(asked(tmp_path / "out"))
    (folder / "3.jsonl").write_text((folder / "3.jsonl").read_text().replace('{"text": \n', '{"text": "the end"}\n'))
    text = prepare_shards(asked(tmp_path / "out"))
    assert {name for name, at in pieces().items() if before[name] != at} == {"00003.arrow"}
    assert rows(text) == rows(prepare_shards(asked(tmp_path / "fresh")))
    (folder / "7.jsonl").write_text('{"text": "more"}')
    with pytest.raises(StoreError, match="holds another prepared text: its files are different; choose another --out"):
        prepare_shards(asked(tmp_path / "out"))


def test_it_is_the_same_text_by_another_path(corpus, whole, tmp_path):
    out = shutil.copytree(whole.folder, tmp_path / "out")
    assert prepare_shards(settings(Path(os.path.relpath(corpus)), out)).info == whole.info


DAMAGES = {
    "info.json is corrupt": lambda out: (out / "info.json").write_text("{"),
    "info.json is corrupt (description is missing)": lambda out: (out / "info.json").write_text("{}"),
    "request.json is corrupt": lambda out: (out / "request.json").write_text("["),
    "train/00001.arrow is missing": lambda out: (out / "train" / "00001.arrow").unlink(),
    "train/00001.arrow has 100 of": lambda out: os.truncate(out / "train" / "00001.arrow", 100),
    "tokenizer/tokenizer.json is missing": lambda out: shutil.rmtree(out / "tokenizer"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_and_mended_by_preparing_again(corpus, whole, tmp_path, damage):
    out = shutil.copytree(whole.folder, tmp_path / "out")
    DAMAGES[damage](out)
    with pytest.raises(DataError, match=re.escape(damage)) as caught:
        prepare(
            TextSettings(data=str(out), sequence_length=16), vocabulary_size=300, tokens=1, cache=tmp_path
        ).tokenizer()
    assert str(caught.value).endswith("; run its mixln data prepare again, or delete it")
    if "request" not in damage:
        assert rows(prepare_shards(settings(corpus, out))) == rows(whole)


def test_a_prepared_text_is_not_prepared_again(whole, tmp_path):
    with pytest.raises(DataError, match="is already prepared"):
        prepare_shards(settings(whole.folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"tokenizer": "/nowhere"}, {"text_column": "content"}])
def test_what_is_wrong_at_once_leaves_no_folder(corpus, tmp_path, wrong):
    chosen = {"vocabulary_size": None, **wrong} if "tokenizer" in wrong else wrong
    with pytest.raises(DataError):
        prepare_shards(settings(corpus, tmp_path / "out", **chosen))
    assert not (tmp_path / "out").exists()


def refusals(corpus: Path, folder: Path) -> dict[str, tuple[str, dict]]:
    """Data that is refused after something was written → what is said, and the settings."""
    texts = small.documents(40, 40, seed=1)
    lines = [json.dumps({"text": text}) for text in texts]
    files = {
        "broken": [*lines, "{"],
        "no text": [*lines, '{"text": null}'],
        "other column": [*lines, '{"content": "one"}'],
    }
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(content))
    small.write_folder(folder / "one", texts[:1])
    return {
        "line 41 is not JSON": (str(folder / "broken.jsonl"), {}),
        "must be text, got NoneType": (str(folder / "no text.jsonl"), {}),
        "has no column 'text'; it has: content": (str(folder / "other column.jsonl"), {}),
        "has no document except the held-out ones": (str(folder / "one"), {}),
        "the held-out part has": (str(corpus), {"sequence_length": 8192}),
        "no file has as many tokens as one sequence": (str(corpus), {"sequence_length": 2500, "held_out": 0.49}),
    }


@pytest.mark.parametrize("number", range(6))
def test_a_refusal_leaves_nothing_behind(corpus, tmp_path, number):
    said, (data, changes) = list(refusals(corpus, tmp_path).items())[number]
    chosen = settings(Path(data), tmp_path / "new" / "out", **changes)
    with pytest.raises(DataError, match=said):
        prepare_shards(chosen)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        prepare_shards(replace(chosen, out=tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_refusal_removes_no_other_file_and_nothing_that_is_done(corpus, tmp_path, monkeypatch):
    """A file that the user puts there meanwhile, a file that is packed, and what an earlier run began."""
    from mixln.data import shards

    chosen = settings(corpus, tmp_path / "out")
    begin = shards._begin

    def and_a_note(out, *rest):
        begin(out, *rest)
        (out / "notes.txt").write_text("mine")
        raise DataError("refused")

    monkeypatch.setattr(shards, "_begin", and_a_note)
    with pytest.raises(DataError, match="refused"):
        prepare_shards(chosen)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    monkeypatch.setattr(shards, "_begin", begin)
    pack, packed = shards._pack_file, []

    def second_is_refused(*arguments):
        if packed:
            raise DataError("refused")
        packed.append(pack(*arguments))
        return packed[0]

    monkeypatch.setattr(shards, "_pack_file", second_is_refused)
    chosen = replace(chosen, out=tmp_path / "begun")
    for _ in range(2):
        with pytest.raises(DataError, match="refused"):
            prepare_shards(chosen)
        assert len(list((tmp_path / "begun" / "train").glob("*.arrow"))) == 1
    monkeypatch.setattr(shards, "_pack_file", pack)
    assert prepare_shards(chosen).info.train_tokens > 0


def test_equal_documents_in_both_parts_are_counted(tmp_path):
    texts = small.documents(40, 40, seed=1)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):  # all documents twice, and the second file in another order
        lines = [json.dumps({"text": text}) for text in (texts if name == "a" else texts[::-1])]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    found = prepare_shards(settings(folder, tmp_path / "out"))
    assert found.info.equal_documents == found.info.held_out_documents > 0
    assert (
        f"{found.info.held_out_documents} held-out documents, {found.info.equal_documents} of which" in found.info.words
    )
    in_memory = prepare(
        TextSettings(data=str(folder), held_out=0.1, sequence_length=16),
        vocabulary_size=300,
        tokens=1000,
        cache=tmp_path / "cache",
    )
    assert in_memory.info.equal_documents == in_memory.info.held_out_documents == 8
    assert in_memory.info.words.endswith(
        "72 training and 8 held-out documents, 8 of which are also in the training part"
    )
    for text in (found, in_memory):  # as an older mixln wrote it
        entries = json.loads((text.folder / "info.json").read_text())
        del entries["equal_documents"]
        (text.folder / "info.json").write_text(json.dumps(entries))
        assert Text.load(text.folder).info.equal_documents is None
        assert "of which" not in Text.load(text.folder).info.words


def test_documents_that_differ_are_not_counted_as_equal(whole):
    assert whole.info.equal_documents == 0
    assert "of which" not in whole.info.words
