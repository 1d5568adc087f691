"""What the fuzzer found, each by itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mixln import records
from mixln.cli import main
from mixln.compare.execution.runner import ERROR, clear_error, write_error
from mixln.data.preparation import prepare
from mixln.data.settings import PrepareSettings, TextSettings
from mixln.data.shards import prepare_shards
from mixln.errors import CheckpointError, DataError, SettingsError
from mixln.evaluation.trust import check_files
from mixln.hosts.sources import find_model, identity
from mixln.records import read_json
from mixln.runs.checkpoints import UNFINISHED, clear
from mixln.runs.checksums import SUMS, read_sums, write_sums
from mixln.runs.metrics import METRICS, read_metrics
from mixln.training.resuming import resumption
from tests import decoders, small
from tests.faults.fuzz.commands import BASES

pytestmark = pytest.mark.long

# Nothing that we did not write is removed.


def test_only_checkpoints_are_removed_from_among_those_that_were_being_written(tmp_path):
    (tmp_path / UNFINISHED / "checkpoint-2").mkdir(parents=True)
    (tmp_path / UNFINISHED / "mine.txt").write_text("mine")
    clear(tmp_path)
    resumption(tmp_path)
    assert [path.name for path in (tmp_path / UNFINISHED).iterdir()] == ["mine.txt"]
    (tmp_path / UNFINISHED / "mine.txt").unlink()
    clear(tmp_path)
    assert not (tmp_path / UNFINISHED).exists()


def test_nothing_is_written_where_a_link_leads(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "outside/checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / UNFINISHED).symlink_to(tmp_path / "outside")
    clear(tmp_path / "run")
    resumption(tmp_path / "run")
    assert (tmp_path / "outside/checkpoint-2").is_dir()
    assert sorted(os.listdir(tmp_path / "run")) == [f"{UNFINISHED}.passed-over", METRICS]


@pytest.mark.parametrize("theirs", ["a file", "a link"])
def test_an_error_is_written_over_an_earlier_one_only(tmp_path, theirs):
    def fail() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            write_error(tmp_path)

    fail()
    assert (tmp_path / ERROR).read_text().endswith("ValueError: no\n")
    clear_error(tmp_path)
    assert list(tmp_path.iterdir()) == []
    mine = tmp_path / ("mine.txt" if theirs == "a link" else ERROR)
    mine.write_text("Traceback (most recent call last)" if theirs == "a link" else "mine")
    before = mine.read_bytes()
    if theirs == "a link":
        (tmp_path / ERROR).symlink_to(mine)
    clear_error(tmp_path)
    fail()
    assert (tmp_path / f"{ERROR}.passed-over").read_bytes() == before
    assert "ValueError" in (tmp_path / ERROR).read_text()
    assert theirs == "a file" or mine.read_bytes() == before


def test_a_list_of_checksums_takes_the_place_of_no_folder(tmp_path):
    (tmp_path / SUMS).mkdir()
    (tmp_path / SUMS / "mine.txt").write_text("mine")
    write_sums(tmp_path, {"a": (1, "0")})
    assert read_sums(tmp_path) == {"a": (1, "0")}
    assert (tmp_path / f"{SUMS}.passed-over/mine.txt").read_text() == "mine"


@pytest.mark.parametrize("theirs", ["folder", "link to a file", "link to nothing"])
@pytest.mark.parametrize("name", ["result.json", "trial.json", METRICS, SUMS])
def test_what_has_the_name_of_a_file_of_ours_gets_another(name, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write_config(tmp_path / "config.json")
    small.write_folder(tmp_path / "text", small.documents())
    trial = tmp_path / "run/pre_lr0.003_seed0"
    command = (*BASES["pretrain"].words, "--placement", "pre", "--out", "run")
    assert main([*command, "--steps", "1"]) == 0
    experiment = (tmp_path / "run/experiment.json").read_bytes()
    shutil.rmtree(trial)
    trial.mkdir()
    (tmp_path / "mine").write_text("mine")
    if theirs == "folder":
        (trial / name).mkdir()
        shutil.copy(tmp_path / "mine", trial / name)
    else:
        (trial / name).symlink_to(tmp_path / ("mine" if theirs == "link to a file" else "nowhere"))
    code = main([*command, "--steps", "1"])
    assert (tmp_path / "mine").read_text() == "mine"
    if theirs == "link to a file" and name in ("result.json", "trial.json"):  # which is read, and is none
        assert code == 2
        return
    assert code == 0
    aside = trial / f"{name}.passed-over"
    assert (aside / "mine").is_file() if theirs == "folder" else aside.is_symlink()
    assert all((trial / each).is_file() for each in ("result.json", "trial.json", METRICS, SUMS))
    assert (tmp_path / "run/experiment.json").read_bytes() == experiment


def test_an_experiment_that_does_not_say_its_versions_is_shown_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write_config(tmp_path / "config.json")
    small.write_folder(tmp_path / "text", small.documents())
    command = [*BASES["pretrain"].words, "--steps", "1", "--out", "run"]
    assert main(command) == 0
    entries = json.loads((tmp_path / "run/experiment.json").read_text())
    for name in ("versions", "hardware", "commit"):
        del entries[name]
    (tmp_path / "run/experiment.json").write_text(json.dumps(entries))
    assert main(command) == 0


@pytest.fixture
def prepared(tmp_path) -> PrepareSettings:
    """A text that has been prepared, in the folder `out`."""
    settings = PrepareSettings(
        data=str(small.write_folder(tmp_path / "text", small.documents())),
        vocabulary_size=300,
        sequence_length=16,
        held_out=0.1,
        tokens=1000,
        out=tmp_path / "out",
    )
    prepare_shards(settings)
    return settings


def mend(settings: PrepareSettings) -> None:
    path = Path(settings.data) / "000.txt"
    path.write_text(path.read_text() + " one two three")


def test_a_mended_text_costs_no_file_among_what_is_held_out(prepared):
    (prepared.out / "held_out/mine.txt").write_text("mine")
    mend(prepared)
    prepare_shards(prepared)
    assert (prepared.out / "held_out.passed-over/mine.txt").read_text() == "mine"
    assert len(list((prepared.out / "held_out.passed-over").iterdir())) == 1


def test_a_folder_in_the_place_of_the_tokenizer_gets_another_name(prepared):
    shutil.rmtree(prepared.out / "tokenizer")
    (prepared.out / "tokenizer").mkdir()
    (prepared.out / "tokenizer/mine.txt").write_text("mine")
    prepare_shards(prepared).open()
    assert (prepared.out / "tokenizer.passed-over/mine.txt").read_text() == "mine"


def test_a_lost_tokenizer_is_not_made_anew_of_another_text(prepared):
    """The pieces that are there were packed by the one before."""
    shutil.rmtree(prepared.out / "tokenizer")
    mend(prepared)
    before = {path: path.stat().st_mtime_ns for path in prepared.out.rglob("*")}
    with pytest.raises(DataError, match=r"tokenizer/tokenizer\.json is missing, and the text has changed since"):
        prepare_shards(prepared)
    assert {path: path.stat().st_mtime_ns for path in prepared.out.rglob("*")} == before


# What is corrupt is found before anything is trained.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer/tokenizer.json", b'"text"', "its tokenizer cannot be loaded"),
        ("held_out/state.json", b"[]", "its sequences cannot be read"),
        ("held_out/data-00000-of-00001.arrow", b"junk", "its sequences cannot be read"),
    ],
)
def test_a_damaged_prepared_text_is_refused_before_the_training(prepared, tmp_path, name, content, said):
    (prepared.out / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        prepare(
            TextSettings(data=str(prepared.out), sequence_length=16),
            vocabulary_size=300,
            tokens=100,
            cache=tmp_path / "cache",
        )


# Files that are larger than memory.


def sparse(path: Path, begin: bytes = b"") -> Path:
    """A terabyte that takes no room."""
    path.write_bytes(begin)
    os.truncate(path, 2**40)
    return path


def test_a_json_file_is_bounded(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"it has 1,099,511,627,776 bytes, more than the limit of 268,435,456"):
        read_json(sparse(tmp_path / "a.json"))
    monkeypatch.setattr(records, "LARGEST", 2)
    (tmp_path / "b.json").write_text("{}")
    assert read_json(tmp_path / "b.json") == {}


def test_a_row_of_a_training_is_bounded(tmp_path):
    path = sparse(tmp_path / METRICS, b'{"step": 1}\n{"step": 2}\n')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    assert read_metrics(path, size=12) == [{"step": 1}]
    assert read_metrics(path, size=0) == []


def test_weights_are_held_against_their_header_before_they_are_summed(tmp_path):
    folder = decoders.save(tmp_path / "model")
    before = identity(find_model(str(folder), cache=tmp_path))
    sparse(folder / "other.safetensors")
    assert identity(find_model(str(folder), cache=tmp_path)) != before
    sparse(folder / "model.safetensors", (folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        identity(find_model(str(folder), cache=tmp_path))


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [(LAUGHS, "must have at most 100,000 entries"), ("a: &a [*a]\n", "must have at most 100,000 entries")],
)
def test_the_aliases_of_a_task_file_are_bounded(tmp_path, content, said):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(SettingsError, match=said):
        check_files(tmp_path)


def test_a_task_file_is_bounded(tmp_path):
    sparse(tmp_path / "a.yaml")
    with pytest.raises(SettingsError, match=r"cannot be read as YAML: .*1,099,511,627,776"):
        check_files(tmp_path)


def test_a_run_of_an_experiment_without_end_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    sparse(tmp_path / "run/experiment.json", json.dumps({"schema": 1}).encode())
    assert main(["diagnose", "run"]) == 2
    said = capsys.readouterr().err
    assert "experiment.json is corrupt (it has 1,099,511,627,776 bytes" in said
    assert said.count("\n") == 1
