"""A training that was cut off goes on from its last whole checkpoint and ends with the numbers that it would have had."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixln.data.text import Text
from mixln.errors import Stopped
from mixln.runs.checkpoints import SUMS, UNFINISHED, publish, seal, sealed
from mixln.runs.metrics import METRICS, read_metrics
from mixln.runs.outcome import Outcome
from mixln.training.resuming import resumption
from tests import small
from tests.hosts import former
from tests.training import together

pytestmark = pytest.mark.long

STEPS = 240
"""More than five passes over the data, and more than 200, so that only every second step is logged."""


STOPPED = 143


def whole_training(text: Text, folder: Path) -> Outcome:
    """A training that saves a checkpoint at every logged step."""
    return small.train(
        text, folder, "mix(0.5)", steps=STEPS, evaluations=10, learning_rate=1e-2, checkpoint_seconds=0.0
    )


def in_another_process(text: Text, folder: Path) -> None:
    torch.set_num_threads(1)
    whole_training(text, folder)


def rarely_saved(text: Text, folder: Path) -> None:
    torch.set_num_threads(1)
    try:
        small.train(text, folder, "mix(0.5)", steps=STEPS, evaluations=10, learning_rate=1e-2, checkpoint_seconds=1e9)
    except Stopped:
        sys.exit(STOPPED)


def kill_once_past(step: int, text: Text, folder: Path) -> None:
    """Starts the training in another process and kills that when its metrics have passed `step`."""
    process = multiprocessing.get_context("spawn").Process(target=in_another_process, args=(text, folder))
    process.start()
    until = time.monotonic() + 120
    while time.monotonic() < until and process.is_alive() and steps_done(folder) < step:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert step <= steps_done(folder) < STEPS


def steps_done(folder: Path) -> int:
    return max((row["step"] for row in read_metrics(folder / "metrics.jsonl")), default=0)


def rows(folder: Path) -> list[dict]:
    """Every row of the metrics, without the speed."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


@pytest.fixture(scope="module")
def uninterrupted(text, tmp_path_factory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, whole_training(text, folder)


@pytest.fixture(scope="module")
def killed(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    kill_once_past(100, text, folder)
    return folder


def assert_same(text: Text, folder: Path, uninterrupted: tuple[Path, Outcome]) -> None:
    outcome = whole_training(text, folder)
    reference, expected = uninterrupted
    assert rows(folder) == rows(reference)
    assert outcome.loss == expected.loss
    for name in ("status", "step", "tokens", "train_curve", "eval_curve", "gradient_norms", "residual_variance"):
        assert getattr(outcome, name) == getattr(expected, name)
    weights, others = (load_file(path / f"checkpoint-{STEPS}" / "model.safetensors") for path in (folder, reference))
    assert all(torch.equal(weights[name], others[name]) for name in weights | others)


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_with_the_same_numbers(
    text, tmp_path, uninterrupted, killed, fed
):
    folder = shutil.copytree(killed, tmp_path / "run")
    step, _ = sealed(folder)[-1]
    assert step >= 90
    fed.clear()
    assert_same(text, folder, uninterrupted)
    assert len(fed) == STEPS - step
    assert uninterrupted[1].status == "finished"


@pytest.mark.parametrize("wrong", ["no mark", "cut off", "one bit", "gone", "all damaged"])
def test_a_damaged_checkpoint_is_said_and_passed_over(text, tmp_path, killed, uninterrupted, news, wrong):
    folder = shutil.copytree(killed, tmp_path / "run")
    whole = [path for _, path in sealed(folder)]
    assert len(whole) == 2
    for checkpoint in whole if wrong == "all damaged" else whole[-1:]:
        weights = checkpoint / "model.safetensors"
        content = bytearray(weights.read_bytes())
        if wrong == "no mark":
            (checkpoint / SUMS).unlink()
        elif wrong == "gone":
            (checkpoint / "scheduler.pt").unlink()
        elif wrong == "one bit":
            content[-5] ^= 1
            weights.write_bytes(content)
        else:
            weights.write_bytes(content[:1000])
    assert_same(text, folder, uninterrupted)
    words = {
        "cut off": "has 1,000 of",
        "one bit": "the content of model.safetensors",
        "gone": "scheduler.pt is missing",
    }
    said = "\n".join(news.messages)
    assert words.get(wrong, "") in said
    assert said.count("skipped corrupt checkpoint") == {"no mark": 0, "all damaged": 2}.get(wrong, 1)


def test_a_terminated_training_saves_and_ends_the_same(text, tmp_path, uninterrupted, fed):
    """SIGTERM long before the next checkpoint is due: what was done is not lost."""
    folder = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=rarely_saved, args=(text, folder))
    process.start()
    while process.is_alive() and steps_done(folder) < 50:
        time.sleep(0.01)
    process.terminate()
    process.join(60)
    assert process.exitcode == STOPPED
    ((step, _),) = sealed(folder)
    assert step >= 50
    fed.clear()
    assert_same(text, folder, uninterrupted)
    assert len(fed) == STEPS - step


def test_a_checkpoint_whose_metrics_are_lost_is_not_used(text, tmp_path, killed, uninterrupted):
    folder = shutil.copytree(killed, tmp_path / "run")
    (folder / "metrics.jsonl").write_text("")
    assert_same(text, folder, uninterrupted)


def test_a_training_cut_off_before_its_first_checkpoint_starts_anew(text, tmp_path, killed, uninterrupted):
    folder = shutil.copytree(killed, tmp_path / "run")
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert_same(text, folder, uninterrupted)


@pytest.mark.parametrize("names", [[], ["checkpoint-9"], ["checkpoint-9", "checkpoint-10", "checkpoint-100"]])
def test_sealed_checkpoints_are_found_in_the_order_of_their_steps(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / SUMS).touch()
    (tmp_path / "checkpoint-200").mkdir()
    assert [path.name for _, path in sealed(tmp_path)] == names


def test_checkpoints_older_than_a_corrupt_one_are_kept(tmp_path, news):
    """The corrupt ones that are skipped have higher steps than the checkpoints that the training then writes."""
    for step in (30, 40):
        written(tmp_path, step)
        (tmp_path / f"checkpoint-{step}" / "weights").write_text("damaged")
    assert resumption(tmp_path)[0] is None
    assert news.messages[:-1] == [
        f"skipped corrupt checkpoint {tmp_path / f'checkpoint-{step}'}: weights has 7 of 2 bytes; "
        f"renamed to checkpoint-{step}.passed-over"
        for step in (40, 30)
    ]
    written(tmp_path, 10)
    written(tmp_path, 20)
    assert [step for step, _ in sealed(tmp_path)] == [10, 20]
    found, metrics = resumption(tmp_path)
    assert found == tmp_path / "checkpoint-20"
    assert [row["step"] for row in metrics.rows] == [10, 20]


def written(folder: Path, step: int) -> None:
    """A checkpoint with one file, and the row before it."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")
    unfinished = folder / UNFINISHED / f"checkpoint-{step}"
    unfinished.mkdir(parents=True)
    (unfinished / "weights").write_text(str(step))
    publish(unfinished, folder)


@pytest.mark.parametrize("placement", ["hybrid*", "dlcl"])
def test_a_checkpoint_with_the_names_of_before_is_resumed(text, tmp_path, placement):
    """mixln 0.1 called a normed projection `q_proj.projection`."""
    settings = {"placement": placement, "steps": 12, "evaluations": 3, "learning_rate": 1e-2}
    together.train(text, str(tmp_path / "whole"), **settings)
    together.train(text, str(tmp_path / "cut"), stop=7, **settings)
    (_, checkpoint), *_ = sealed(tmp_path / "cut")
    names = set()
    for file in checkpoint.rglob("*.safetensors"):
        former.rename(file, small.SIZES["num_hidden_layers"])
        names |= load_file(file).keys()
    assert any(".projection." in name or ".last_combination." in name for name in names)
    (checkpoint / SUMS).unlink()
    seal(checkpoint)
    together.train(text, str(tmp_path / "cut"), **settings)
    rows, expected = (read_metrics(tmp_path / name / METRICS) for name in ("cut", "whole"))
    assert [row.get("loss") for row in rows] == [row.get("loss") for row in expected]
    assert [row.get("eval_loss") for row in rows] == [row.get("eval_loss") for row in expected]
