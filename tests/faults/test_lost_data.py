"""Nothing that we did not write is removed, and a result that is not what was written is found when it is read."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mixln.cli import main
from mixln.compare.execution.trial_job import tidy
from mixln.compare.sources import find
from mixln.compare.store import Store
from mixln.data.settings import PrepareSettings
from mixln.data.shards import prepare_shards
from mixln.errors import DataError, MixlnError, SettingsError, StoreError
from mixln.files import (
    TEMPORARY,
    cache_folder,
    check_writable,
    folder_atomic,
    make_folder,
    set_aside,
    sweep,
    temporary_folder,
    undone_on,
    write_atomic,
)
from mixln.runs.checkpoints import DISCARDED, UNFINISHED, clear, discard, final_folder, publish, sealed
from mixln.runs.checksums import SUMS
from mixln.runs.metrics import METRICS, read_metrics
from mixln.runs.reports import ReportFolder
from mixln.runs.trials import RESULT, TRIAL, TrialResult, finish, read_result
from mixln.training.resuming import resumption
from tests import decoders, small
from tests.compare.records import result
from tests.runs.jobs import ASKED, once
from tests.tiny import placed


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file and link in a folder."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def saved(folder: Path, step: int) -> None:
    """A resumable checkpoint with one file, and its row."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"step": step, "loss": 1.0}) + "\n")
    unfinished = folder / UNFINISHED / f"checkpoint-{step}"
    unfinished.mkdir(parents=True)
    (unfinished / "weights").write_text(str(step))
    publish(unfinished, folder)


SHARED = {"settings": {"steps": 10}, "text": {"fingerprint": "abc"}}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "run")


def ended(store: Store, *, loss: float | None = 3.0, shared: dict | None = SHARED) -> tuple[Path, TrialResult]:
    """A trial as a worker leaves it: with what its training went on from, its last model and its result."""
    trial = result("pre", loss)
    folder = store.add(trial.trial, shared)
    for step in (4, 8):
        saved(folder, step)
    if loss is not None:
        with final_folder(folder / "checkpoint-10") as target:
            placed("pre").save_pretrained(target)
    finish(folder, trial)
    return folder, trial


# 15: cleaning up.


def foreign(folder: Path, outside: Path) -> dict[str, bytes | str]:
    """Puts copies, notes and links of a user among the checkpoints; returns them."""
    outside.mkdir()
    (outside / SUMS).write_text("{}")
    (outside / "weights").write_text("theirs")
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-4-mybackup")
    (folder / "checkpoint-notes").mkdir()
    (folder / "checkpoint-notes/why.txt").write_text("because")
    (folder / "checkpoint-link").symlink_to(outside)
    (folder / "checkpoint-3").symlink_to(outside)
    (folder / "checkpoint-8/mine.txt").write_text("mine")
    (folder / "checkpoint-77").mkdir()
    (folder / "checkpoint-77/mine.txt").write_text("mine")
    (folder / ".checkpoint-4.mine1234").write_text("mine")
    kept = ("-mybackup/", "-notes/", "-link", "checkpoint-3", "/mine.txt", ".mine1234")
    return {name: data for name, data in content(folder).items() if any(part in name for part in kept)}


@pytest.mark.parametrize("loss", [3.0, None], ids=["finished", "diverged"])
def test_a_trial_that_has_ended_loses_its_own_checkpoints_only(store, tmp_path, loss):
    folder, trial = ended(store, loss=loss)
    theirs, others = foreign(folder, tmp_path / "outside"), content(tmp_path / "outside")
    tidy(folder, trial)
    assert sorted(path.name for path in folder.glob("checkpoint-*/weights")) == ["weights"] * 3
    assert not (folder / "checkpoint-4").exists()
    assert sorted(os.listdir(folder / "checkpoint-8")) == ["mine.txt"]
    assert (folder / "checkpoint-10/model.safetensors").is_file() is (loss is not None)
    assert {name: data for name, data in content(folder).items() if name in theirs} == theirs
    assert content(tmp_path / "outside") == others


def test_so_do_fine_tuning_and_each_new_checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    for step in (4, 8):
        saved(tmp_path / "run", step)
    theirs = foreign(tmp_path / "run", tmp_path / "outside")
    outside = content(tmp_path / "outside")
    saved(tmp_path / "run", 12)
    assert "checkpoint-4/weights" not in content(tmp_path / "run")
    clear(tmp_path / "run")
    assert theirs.items() <= content(tmp_path / "run").items()
    assert content(tmp_path / "outside") == outside
    assert [path for _, path in sealed(tmp_path / "run")] == [tmp_path / "run/checkpoint-3"]  # a link to what they have


def test_a_deletion_that_was_cut_off_is_finished(tmp_path):
    for step in (4, 8):
        saved(tmp_path, step)
    os.replace(tmp_path / "checkpoint-4" / SUMS, tmp_path / "checkpoint-4" / DISCARDED)
    assert [step for step, _ in sealed(tmp_path)] == [8]
    clear(tmp_path, keep="checkpoint-8")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]


def test_a_list_that_names_files_outside_deletes_none(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    saved(tmp_path, 4)
    sums = json.loads((tmp_path / "checkpoint-4" / SUMS).read_text())
    for name in ("../mine.txt", str(tmp_path / "mine.txt")):
        (tmp_path / "checkpoint-4" / SUMS).write_text(json.dumps({name: [4, "0"], **sums}))
        discard(tmp_path / "checkpoint-4")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("mine")
    (tmp_path / "checkpoint-4/sub").symlink_to(tmp_path / "folder")
    (tmp_path / "checkpoint-4" / SUMS).write_text(json.dumps({"sub/file": [4, "0"], **sums}))
    discard(tmp_path / "checkpoint-4")
    assert (tmp_path / "mine.txt").read_text() == (tmp_path / "folder/file").read_text() == "mine"
    assert not (tmp_path / "checkpoint-4/weights").exists()


# 16: results that were edited, and jobs that are refused.


@pytest.mark.parametrize("step", [9, -3, 10**400], ids=["9", "-3", "10^400"])
@pytest.mark.parametrize("known", [True, False], ids=["sums", "no sums"])
def test_an_edited_step_costs_no_weights(store, step, known):
    folder, _ = ended(store)
    text = (folder / RESULT).read_text()
    (folder / RESULT).write_text(text.replace('"step": 10,', f'"step": {step},'))
    if not known:
        (folder / SUMS).unlink()
    before = content(folder)
    with pytest.raises(
        StoreError, match=r"has changed since it was written|names checkpoint-9 as its model|is corrupt"
    ):
        tidy(folder, read_result(folder))
    assert content(folder) == before


def test_weights_that_changed_keep_the_other_checkpoints(store):
    folder, trial = ended(store)
    weights = folder / "checkpoint-10/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    before = content(folder)
    with pytest.raises(StoreError, match=r"the content of checkpoint-10/model.safetensors has changed: the other"):
        tidy(folder, trial)
    assert content(folder) == before
    with pytest.raises(StoreError, match=r"checkpoint-10/model.safetensors has changed; restore it"):
        find(str(folder), cache=Path("unused"))


@dataclass(frozen=True, kw_only=True)
class Found:
    value: float = 0.5


def job(folder: Path) -> None:
    """One that writes as a training does, and is refused."""

    def work() -> Found:
        make_folder(folder / "checkpoints")
        resumption(folder / "checkpoints")
        raise SettingsError("it cannot be")

    with pytest.raises(SettingsError, match="it cannot be"):
        once(folder, {"kind": "test"}, Found, work)


def test_of_a_refused_job_nothing_stays(tmp_path):
    job(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lock", [False, True])
def test_a_refused_job_leaves_a_folder_that_was_there(tmp_path, lock):
    if lock:
        (tmp_path / ".lock").write_text("mine")
    job(tmp_path)
    assert content(tmp_path) == ({".lock": b"mine"} if lock else {})


def test_a_refused_job_leaves_what_came_meanwhile(tmp_path):
    def work() -> Found:
        (tmp_path / "out/notes.txt").write_text("mine")
        raise SettingsError("it cannot be")

    with pytest.raises(SettingsError):
        once(tmp_path / "out", {"kind": "test"}, Found, work)
    assert content(tmp_path) == {"out/notes.txt": b"mine"}


def test_a_refused_job_behind_a_link_says_why(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    job(tmp_path / "out")
    assert content(tmp_path) == {"out": str(tmp_path / "real")}


def test_what_can_be_resumed_is_kept(tmp_path):
    def work() -> Found:
        (tmp_path / "out/checkpoints").mkdir()
        saved(tmp_path / "out/checkpoints", 4)
        raise SettingsError("too late")

    with pytest.raises(SettingsError):
        once(tmp_path / "out", {"kind": "test"}, Found, work)
    assert (tmp_path / "out" / ASKED).is_file()
    assert len(sealed(tmp_path / "out/checkpoints")) == 1


def test_undoing_goes_through_the_parts_of_a_job(tmp_path):
    (tmp_path / "there").write_text("old")

    def parts() -> None:
        with undone_on(tmp_path / "a", MixlnError):
            with undone_on(tmp_path / "a/b", MixlnError):
                write_atomic(tmp_path / "there", "new")
                write_atomic(tmp_path / "cache", "for others too")
                with folder_atomic(tmp_path / "a/b") as target:
                    (target / "sub").mkdir()
                    (target / "sub/file").write_text("x")
            raise DataError("no")

    with pytest.raises(DataError):
        parts()
    assert content(tmp_path) == {"there": b"new", "cache": b"for others too"}
    assert sorted(os.listdir(tmp_path)) == ["cache", "there"]


# 17: reports.


def report(text: str):
    def write(folder: Path) -> list[Path]:
        for name in ("report.html", "table.md"):
            write_atomic(folder / name, text)
        return [folder / "report.html", folder / "table.md"]

    return write


@pytest.mark.parametrize("names", [("report.html",), ("experiment.json", "report.html"), ("trial.json",), (ASKED,)])
def test_a_report_goes_into_no_folder_of_another(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(StoreError, match="is not empty and holds no diagnosis; choose another --out"):
        ReportFolder(tmp_path, "diagnosis").check()
    assert content(tmp_path) == before


def test_a_report_takes_the_place_of_the_one_before_and_of_nothing_else(tmp_path, news):
    reports = ReportFolder(tmp_path / "out", "diagnosis")
    reports.check()
    for text in ("one", "two"):
        paths = reports.publish(report(text))
        reports.check()
    assert [path.read_text() for path in paths] == ["two", "two"]
    with pytest.raises(StoreError, match="holds no evaluation"):
        ReportFolder(tmp_path / "out", "evaluation").check()
    (tmp_path / "out/mine.txt").write_text("mine")
    (tmp_path / "out/table.md").write_text("edited")
    assert news.messages == []
    reports.publish(report("three"))
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert {name: found[name] for name in ("report.html", "table.md", "mine.txt")} == {
        "report.html": "three", "table.md": "three", "mine.txt": "mine",
    }  # fmt: skip
    assert found["table.md.passed-over"] == "edited"
    assert len(news.messages) == 1
    # What a later report has no more goes, unless it was edited.
    reports.publish(lambda folder: [report("four")(folder)[0]])
    assert not (tmp_path / "out/table.md").exists()


@pytest.mark.parametrize("command", ["diagnose", "evaluate"])
def test_the_commands_refuse_before_they_look_at_the_model(tmp_path, command, capsys):
    for name in ("report.html", "table.md", "diagnosis.json", "evaluation.json"):
        (tmp_path / name).write_text('{"mine": 1}')
    (tmp_path / "no-model").mkdir()
    before = content(tmp_path)
    tasks = ["--tasks", "piqa"] if command == "evaluate" else []
    assert main([command, str(tmp_path / "no-model"), *tasks, "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no" in capsys.readouterr().err
    assert content(tmp_path) == before


# 18: results that are bound to what they belong to.


def tuned(folder: Path, text: str = "weights") -> bool:
    """A job that leaves a model; whether it had been done."""

    def work() -> Found:
        with final_folder(folder / "model") as target:
            (target / "model.safetensors").write_text(text)
        return Found()

    return once(folder, {"kind": "test"}, Found, work, lambda result: ["model"])[1]


def test_a_result_that_was_deleted_is_made_again_in_truth(tmp_path):
    assert not tuned(tmp_path)
    assert tuned(tmp_path)
    (tmp_path / RESULT).unlink()
    assert not tuned(tmp_path, "later")
    assert (tmp_path / "model/model.safetensors").read_text() == "later"
    assert not list(tmp_path.glob("*.passed-over"))  # what was written here itself is no one's loss


def test_a_foreign_model_does_not_stay_and_is_not_lost(tmp_path):
    assert not tuned(tmp_path)
    (tmp_path / "model/model.safetensors").write_text("foreign")
    with pytest.raises(StoreError, match=r"model/model.safetensors has 7 of 7 bytes|model.safetensors has changed"):
        tuned(tmp_path)
    (tmp_path / RESULT).write_text("{")
    with pytest.raises(StoreError, match=r"result.json is corrupt .*; delete it to do this again"):
        tuned(tmp_path)
    (tmp_path / RESULT).unlink()
    assert not tuned(tmp_path, "right")
    assert (tmp_path / "model/model.safetensors").read_text() == "right"
    assert (tmp_path / "model.passed-over/model.safetensors").read_text() == "foreign"
    assert tuned(tmp_path)


@pytest.mark.parametrize("known", [True, False], ids=["sums", "no sums"])
def test_a_model_that_is_gone_is_missed(tmp_path, known):
    tuned(tmp_path)
    shutil.rmtree(tmp_path / "model")
    if not known:
        (tmp_path / SUMS).unlink()
    with pytest.raises(StoreError, match=r"model is missing, which belongs to .*result.json; restore it, or delete"):
        tuned(tmp_path)


def test_an_edited_number_is_found(tmp_path):
    tuned(tmp_path)
    (tmp_path / RESULT).write_text((tmp_path / RESULT).read_text().replace("0.5", "0.4"))
    with pytest.raises(StoreError, match=r"the content of result.json has changed; restore it, or delete"):
        tuned(tmp_path)
    (tmp_path / SUMS).write_text("{")
    with pytest.raises(StoreError, match=r"checksums.json is corrupt"):
        tuned(tmp_path)
    (tmp_path / SUMS).unlink()  # as in folders of mixln's first versions
    assert tuned(tmp_path)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [(RESULT, "3.0", "2.0"), (TRIAL, '"pre"', '"post"'), (METRICS, "1.0", "1.5"), (METRICS, "}", "}\n{}")],
)
def test_an_edited_file_of_a_trial_is_found(store, file, before, after):
    folder, trial = ended(store)
    assert store.result(trial.trial, SHARED) == trial
    edit(folder / file, before, after)
    for look in (lambda: store.result(trial.trial, SHARED), lambda: find(str(folder), cache=Path("unused"))):
        with pytest.raises(StoreError) as caught:
            look()
        assert str(folder) in str(caught.value)
        assert file in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_a_trial_of_another_experiment_is_refused(store, tmp_path, finished):
    folder, trial = ended(Store(tmp_path / "other"))
    if not finished:
        (folder / RESULT).unlink()
    shutil.copytree(folder, store.trial_folder(trial.trial))
    before = content(store.folder)
    for part, value, words in (
        ("settings", {"steps": 20}, "steps was 10, now 20"),
        ("text", {"fingerprint": "abd"}, "text is different: fingerprint was abc, now abd"),
    ):
        with pytest.raises(StoreError, match=rf"belongs to another experiment: .*{words}; move it away"):
            store.result(trial.trial, {**SHARED, part: value})
        with pytest.raises(StoreError, match="belongs to another experiment"):
            store.add(trial.trial, {**SHARED, part: value})
    assert content(store.folder) == before
    assert store.result(trial.trial, SHARED) == (trial if finished else None)


def test_an_unfinished_trial_that_was_edited_is_refused(store):
    trial = result("pre", 1.0).trial
    folder = store.add(trial, SHARED)
    edit(folder / TRIAL, '"pre"', '"post"')
    with pytest.raises(StoreError, match=r"trial.json is not of this trial: placement was post, now pre"):
        store.result(trial, SHARED)


def test_a_trial_of_an_earlier_version_opens(store):
    """Without sums, and without its experiment in `trial.json`."""
    folder, trial = ended(store, shared=None)
    (folder / SUMS).unlink()
    edit(folder / METRICS, "1.0", "1.5")
    assert store.result(trial.trial, SHARED) == trial
    tidy(folder, trial)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-10"]


@pytest.mark.parametrize("how", ["edited", "doubled", "edited after"])
def test_rows_that_changed_before_a_checkpoint_are_not_resumed(tmp_path, how, news):
    for step in (4, 8):
        saved(tmp_path, step)
    rows = (tmp_path / METRICS).read_text().splitlines(keepends=True)
    wrong = {
        "edited": [rows[0].replace("1.0", "1.5"), rows[1]],
        "doubled": [rows[0], *rows],
        "edited after": [rows[0], rows[1].replace("1.0", "1.5")],
    }[how]
    (tmp_path / METRICS).write_text("".join(wrong))
    found, metrics = resumption(tmp_path)
    assert "its rows in metrics.jsonl have changed" in news.messages[0]
    if how == "edited":
        assert found is None
        assert metrics.rows == []
    else:
        assert found == tmp_path / "checkpoint-4"
        assert metrics.rows == read_metrics(tmp_path / METRICS) == [{"step": 4, "loss": 1.0}]


def test_rows_that_were_added_behind_a_checkpoint_are_dropped(tmp_path):
    saved(tmp_path, 4)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "loss": 9.0}\n')
    assert resumption(tmp_path)[1].rows == [{"step": 4, "loss": 1.0}]


# 19: permissions, what killed writers leave, refusals of data prepare, names.


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("mask", "folder", "file"), [(0o077, 0o700, 0o600), (0o027, 0o750, 0o640), (0o022, 0o755, 0o644)]
)
def test_what_is_written_follows_the_umask(tmp_path, mask, folder, file):
    decoders.save(tmp_path / "model")
    with umask(mask):
        write_atomic(tmp_path / "file", "x")
        saved(tmp_path, 4)
        assert main(["prune", str(tmp_path / "model"), "--layers", "1", "--out", str(tmp_path / "smaller")]) == 0
        assert main(["convert", str(tmp_path / "model"), "--out", str(tmp_path / "stock")]) == 0
        with final_folder(tmp_path / "final") as target:
            (target / "private").touch(mode=0o600)
            (target / "sub").mkdir(mode=0o700)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == file
    for name in ("checkpoint-4", "smaller", "stock", "final"):
        for path in (tmp_path / name, *(tmp_path / name).rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path


KILLED = """
import os, sys
from pathlib import Path
from mixln import files
os.{call} = lambda *_: os._exit(9)
if sys.argv[2] == "file":
    files.write_atomic(Path(sys.argv[1]) / "a.json", "x")
with files.folder_atomic(Path(sys.argv[1]) / "key") as folder:
    (folder / "weights").write_text("x")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_leaves_goes_and_what_a_living_one_writes_stays(tmp_path, kind):
    code = KILLED.format(call="replace" if kind == "file" else "rename")
    assert subprocess.run([sys.executable, "-c", code, tmp_path, kind], check=False).returncode == 9
    left = os.listdir(tmp_path)
    assert len(left) == (1 if kind == "file" else 2)
    assert any(TEMPORARY.fullmatch(name) for name in left)
    mine = [".mine.ab12cd34", ".report.html.swp", ".key.mixln-0123456789ab.txt"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".link.mixln-0123456789ab").symlink_to(tmp_path / mine[0])
    with temporary_folder(tmp_path / "other") as living:
        write_atomic(tmp_path / "b.json", "x")
        with folder_atomic(tmp_path / "third"):
            pass
        found = set(os.listdir(tmp_path))
        assert living.is_dir()
        assert found == {"b.json", "third", living.name, f"{living.name}.lock", ".link.mixln-0123456789ab", *mine}
    sweep(tmp_path)
    assert set(os.listdir(tmp_path)) == {"b.json", "third", ".link.mixln-0123456789ab", *mine}


def test_a_name_that_is_taken_is_made_free_without_loss(tmp_path):
    for text in ("one", "two", "three"):
        (tmp_path / "a").write_text(text)
        set_aside(tmp_path / "a")
    assert content(tmp_path) == {"a.passed-over": b"one", "a.passed-over-2": b"two", "a.passed-over-3": b"three"}


def test_a_broken_cache_is_not_taken_for_a_whole_one(tmp_path):
    (tmp_path / "key").mkdir()
    (tmp_path / "key/half").write_text("x")
    with folder_atomic(tmp_path / "key", keeps=lambda folder: (folder / "info.json").is_file()) as target:
        (target / "info.json").write_text("{}")
    assert content(tmp_path) == {"key/info.json": b"{}", "key.passed-over/half": b"x"}


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize(
    ("texts", "length", "words"),
    [
        (["one two three"] * 40, 900, "the held-out part has"),
        (small.documents(40, 12), 32, "no file has as many tokens as one sequence of 32"),
        (["x"], 16, "two documents|except the held-out ones|held-out part"),
    ],
    ids=["held out", "train", "one"],
)
def test_a_refused_data_prepare_leaves_nothing(tmp_path, texts, length, words, there):
    data = small.write_folder(tmp_path / "text", texts)
    before = content(tmp_path)
    if there:
        (tmp_path / "out").mkdir()
    chosen = {"tokens": 1000, "sequence_length": length, "vocabulary_size": 300, "held_out": 0.2}
    with pytest.raises(MixlnError, match=words):
        prepare_shards(PrepareSettings(data=str(data), out=tmp_path / "out", **chosen))
    assert content(tmp_path) == before
    assert (tmp_path / "out").exists() is there


@pytest.mark.parametrize(
    "command",
    [
        ("compare",), ("finetune", "model"), ("prune", "model", "--layers", "1"), ("diagnose", "model"),
        ("evaluate", "model", "--tasks", "piqa"), ("data", "prepare", "--data", "x", "--tokens", "9"), ("tune",),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_a_name_that_is_not_utf8_is_refused_at_once(tmp_path, monkeypatch, capsys, command, option):
    monkeypatch.chdir(tmp_path)
    assert main([*command, option, "bad\udcff"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not UTF-8" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_not_utf8_is_refused_too(tmp_path, monkeypatch):
    """It may be the current one."""
    (tmp_path / "bad\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "bad\udcff")
    with pytest.raises(StoreError, match=r"out .* is not UTF-8; choose another folder with --out"):
        check_writable(Path("out"))
    with pytest.raises(StoreError, match=r"cache .* is not UTF-8; choose another folder with --cache"):
        cache_folder(Path("cache"))


@pytest.mark.parametrize(
    "command",
    [("compare", "--out"), ("prune", "model", "--layers", "1", "--out"), ("tune", "--out"), ("stress", "--out")],
    ids=lambda words: words[0],
)
def test_a_cache_of_nobody_is_one_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "out", "--cache", "~nouser/c"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "~nouser/c begins with the home of a user who is not known on this machine" in said
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_nothing_is_no_out(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreError, match="is a broken symbolic link"):
        check_writable(tmp_path / "out")
