"""Folders that the version before wrote open and resume. `earlier/` has their small files; weights are made here where they are needed.

They were written with the commands below, by the commit before every file had a schema.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixln.cli import main
from mixln.compare.chain import KEPT as KEPT_CHAIN
from mixln.compare.diagnosis import KEPT as KEPT_DIAGNOSIS
from mixln.data.image_dataset import PreparedImages
from mixln.data.shards import EQUAL
from mixln.data.text import Text
from mixln.errors import StoreError
from mixln.evaluation.models import KEPT as KEPT_SCORE
from mixln.hosts.sources import find_model, identity
from mixln.runs.checkpoints import ROWS, SUMS, UNFINISHED, last_usable, publish
from mixln.runs.checksums import read_sums, sums_of, write_sums
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.metrics import METRICS
from mixln.runs.reports import ReportFolder
from mixln.runs.trials import RESULT, TRIAL_RUN, read_result
from mixln.training.post_training_run import TUNING_RUN
from tests import decoders, small
from tests.diagnostics import zoo
from tests.faults.fuzz.commands import CHAINED, PREPARATION, SEARCH, STORE, STRESS, TUNING

EARLIER = Path(__file__).parent / "earlier"
pytestmark = pytest.mark.filterwarnings("default")  # lm-eval's and TRL's own


def unpack(name: str) -> Path:
    """Writes the files of a folder into the current one."""
    for path, text in json.loads((EARLIER / f"{name}.json").read_text("utf-8")).items():
        place = Path(name, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    return Path(name)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, with what the commands read."""
    monkeypatch.chdir(tmp_path)
    small.write_folder(Path("text"), small.documents())
    small.write_config(Path("config.json"))
    texts = small.documents(60, 12)
    rows = [{"text": t, "prompt": t[:20], "completion": t[20:], "chosen": t[20:], "rejected": t[21:]} for t in texts]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    Path("tasks").mkdir()
    zoo.write_task(Path("tasks"), [{"question": "one two three", "choices": ["four", "nine"], "gold": 0}] * 2)
    return tmp_path


def times(folder: Path, pattern: str) -> dict[Path, int]:
    found = {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}
    assert found
    return found


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("name", "command"), [("store", STORE), ("stressed", STRESS), ("searched", SEARCH)])
def test_what_is_finished_is_not_repeated(here, name, command):
    out = unpack(name)
    before = times(out, RESULT)
    code = main([*command, "--out", name])
    assert code == 0 or (name == "searched" and code == 1)  # it finds nothing
    assert times(out, RESULT) == before
    request = next(path for path in (out / "experiment.json", out / "search.json") if path.is_file())
    assert json.loads(request.read_text())["schema"] == f"{request.stem}/2"


def test_an_interrupted_comparison_resumes(here):
    out = unpack("store")
    trial, other = sorted(path.parent for path in out.glob(f"*/{RESULT}"))
    ended, kept = read_result(trial), times(other, RESULT)
    for name in (RESULT, SUMS):
        (trial / name).unlink()
    assert main([*STORE, "--out", "store"]) == 0
    assert read_result(trial).loss == pytest.approx(ended.loss, rel=1e-3)
    assert times(other, RESULT) == kept


def test_another_comparison_is_refused(here, capsys):
    unpack("store")
    assert main([*STORE, "--steps", "3", "--out", "store"]) == 2
    assert "out store holds another experiment: steps was 2, now 3" in capsys.readouterr().err


def test_a_checkpoint_is_resumed(tmp_path, news):
    (tmp_path / METRICS).write_text('{"step": 4, "loss": 1.0}\n')
    unfinished = tmp_path / UNFINISHED / "checkpoint-4"
    unfinished.mkdir(parents=True)
    (unfinished / "weights").write_text("4")
    publish(unfinished, tmp_path)
    checkpoint = tmp_path / "checkpoint-4"
    (checkpoint / ROWS.file).write_text(json.dumps(sums_of(tmp_path, METRICS)[METRICS]))
    (checkpoint / SUMS).write_text(json.dumps(sums_of(checkpoint)))
    assert last_usable(tmp_path)[0] == checkpoint
    (tmp_path / METRICS).write_text('{"step": 4, "loss": 2.0}\n')
    assert last_usable(tmp_path)[0] is None
    assert "its rows in metrics.jsonl have changed" in news.messages[0]


def with_weights(folder: Path) -> None:
    """Makes the files that a list of checksums names and that are not there, and lists those."""
    for name in (sums := read_sums(folder) or {}):
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("weights")
    (folder / SUMS).write_text(json.dumps(sums_of(folder, *sums)))


def test_a_fine_tuning_is_not_repeated(here, capsys):
    decoders.save(Path("placed"), "mix(0.5)")
    tuned = unpack("tuned")
    edit(tuned / "asked.json", model=identity(find_model("placed", cache=here)))
    with_weights(tuned)
    before = times(tuned, "*.json")
    assert main([*TUNING["finetune"], "--out", "tuned"]) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert times(tuned, "*.json") == before
    assert main([*TUNING["finetune"], "--steps", "2", "--out", "tuned"]) == 2
    assert "out tuned holds another training: steps was 1, now 2" in capsys.readouterr().err
    (tuned / "model/model.safetensors").write_text("WEIGHTS")
    with pytest.raises(StoreError, match=r"the content of model/model.safetensors has changed; restore it, or delete"):
        RunFolder(tuned, TUNING_RUN).result()


def test_a_chain_is_not_repeated(here, capsys):
    out = unpack("chained")
    before = times(out, "*result.json")
    assert main([*CHAINED, "--out", "chained"]) == 0
    assert "chain finetune, evaluate, rlhf: 1 of 1 trials done" in capsys.readouterr().out
    assert times(out, "*result.json") == before
    assert (out / "chain-request.json").is_file()
    assert main([*CHAINED, "--finetune.steps", "2", "--out", "chained"]) == 2
    assert "out chained holds another chain: finetune steps was 1, now 2" in capsys.readouterr().err


def test_the_result_of_a_chain_is_read(here):
    (trial,) = (path.parent for path in unpack("chained").glob(f"*/{RESULT}"))
    kept = json.loads((trial / "chain.json").read_text())
    request = {"steps": kept["asked"], "model": kept["of"]}
    found = RunFolder(trial, TRIAL_RUN).recall(KEPT_CHAIN, request)
    assert found.finetuned.step == 1
    assert RunFolder(trial, TRIAL_RUN).recall(KEPT_CHAIN, {**request, "model": "other"}) is None


def test_a_prepared_text_is_not_prepared_again(here):
    assert main([*PREPARATION, "--out", "prepared"]) == 0
    new, request = (json.loads(Path("prepared", name).read_text()) for name in ("info.json", "request.json"))
    assert (new["schema"], request["schema"]) == ("text/2", "text-request/2")
    out = unpack("prepared")
    edit(out / "request.json", of=request["of"])  # the times at which the files of the text were written
    before = times(out, "*.arrow")
    assert json.loads((out / "info.json").read_text())["files"] == new["files"]
    assert main([*PREPARATION, "--out", "prepared"]) == 0
    assert times(out, "*.arrow") == before
    assert Text.load(out).open().info.equal_documents == new["equal_documents"]
    # A piece was lost, and what is equal is counted anew from the others' files.
    next(out.glob("train/*.arrow")).unlink()
    assert main([*PREPARATION, "--out", "prepared"]) == 0
    assert Text.load(out).info.equal_documents == new["equal_documents"]
    assert len(EQUAL.read(next(out.glob("train/*.json"))).digests) == 0


def test_a_diagnosis_and_a_score_are_not_computed_again(here):
    for place in unpack("store").glob("*/diagnosis.json"):
        kept = json.loads(place.read_text())
        found = RunFolder(place.parent, TRIAL_RUN).recall(KEPT_DIAGNOSIS, kept["settings"])
        assert found.angular.tokens == kept["diagnosis"]["angular"]["tokens"]
        assert RunFolder(place.parent, TRIAL_RUN).recall(KEPT_DIAGNOSIS, {**kept["settings"], "seed": 9}) is None
    (place,) = unpack("evaluated").rglob("scores/*/*.json")
    kept = json.loads(place.read_text())
    name = place.relative_to("evaluated").as_posix()
    found = RunFolder(Path("evaluated"), RunKind(noun="evaluation")).recall(KEPT_SCORE, kept["asked"], name)
    assert found.metrics[0].value == kept["score"]["metrics"][0]["value"]


@pytest.mark.parametrize(("name", "kind"), [("diagnosed", "diagnosis"), ("evaluated", "evaluation")])
def test_a_report_is_replaced(here, name, kind, news):
    folder = unpack(name)
    reports = ReportFolder(folder, kind)
    reports.check()
    listed = read_sums(folder) or {}
    own = next(file for file in listed if file.endswith(".json"))

    def write(target: Path) -> list[Path]:
        (target / own).write_text("{}")
        return [target / own]

    reports.publish(write)
    assert news.messages == []  # it was written by this command
    with pytest.raises(StoreError, match="is not empty and holds no reproduction"):
        ReportFolder(folder, "reproduction").check()


def test_images_in_the_cache_are_read(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "stored/images-info.json", tmp_path / "info.json")
    assert PreparedImages.load(tmp_path).info.size > 0


def test_a_trial_of_images_is_read(here):
    (place,) = unpack("vision").glob(f"*/{RESULT}")
    assert read_result(place.parent).figures["accuracy"] >= 0


def test_the_list_of_checksums_of_a_newer_version_is_not_overwritten(tmp_path):
    write_sums(tmp_path, {"a": (1, "0")})
    edit(tmp_path / SUMS, schema="checksums/3")
    with pytest.raises(ValueError, match=r"schema is checksums/3, newer than checksums/2 of this version of mixln"):
        read_sums(tmp_path)
