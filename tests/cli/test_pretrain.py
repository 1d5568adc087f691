"""`mixln pretrain`: one trial, alone or by several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixln.cli import main
from mixln.errors import SettingsError
from mixln.runs.checkpoints import sealed
from mixln.training import ranks
from tests import small

TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mixln"]


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    data = small.write_folder(tmp_path / "text", small.documents())
    config = small.write_config(tmp_path / "config.json")
    return [
        *("--model", str(config), "--data", str(data), "--cache", str(tmp_path / "cache"), "--vocabulary-size", "300"),
        *("--held-out", "0.1", "--sequence-length", "16", "--batch-size", "4", "--precision", "float32"),
    ]


def started(arguments: list[str], *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def result(folder: Path) -> dict:
    (path,) = folder.glob("*/result.json")
    return json.loads(path.read_text())


@pytest.mark.long
def test_is_one_trial_of_a_comparison(arguments, tmp_path, capsys):
    steps = ["--steps", "6", "--evaluations", "2"]
    assert (
        main(["compare", *arguments, *steps, "--placements", "post", "--seeds", "1", "--out", str(tmp_path / "a")]) == 0
    )
    assert (
        main(["pretrain", *arguments, *steps, "--placement", "post", "--seed", "1", "--out", str(tmp_path / "b")]) == 0
    )
    (hardware,) = json.loads((tmp_path / "b" / "experiment.json").read_text())["hardware"]
    assert (hardware["trials"], hardware["threads"]) == (1, None)
    one, two = result(tmp_path / "a"), result(tmp_path / "b")
    for timed in ("seconds", "tokens_per_second", "first_step_seconds"):
        del one[timed], two[timed]
    assert one == two
    assert "report: " in capsys.readouterr().out


@pytest.mark.long
def test_two_processes_save_at_sigterm_and_one_goes_on(arguments, tmp_path):
    command = ["pretrain", *arguments, "--steps", "4000", "--out", str(tmp_path / "out"), "--parallel", "fsdp"]
    process = started(TOGETHER, *command)
    (folder,) = _appears(tmp_path / "out", "*/metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert "mixln: saved and stopped; run the same command again" in errors
    ((step, _),) = sealed(folder.parent)
    assert 0 < step < 4000


@pytest.mark.long
def test_of_two_processes_one_says_what_is_wrong(arguments, tmp_path):
    process = started(
        TOGETHER, "pretrain", *arguments, "--steps", "6", "--batch-size", "3", "--out", str(tmp_path / "out")
    )
    _, errors = process.communicate(timeout=120)
    assert errors.count("mixln: batch-size must be a multiple of 2 (2 processes with 1 sequences per pass), got 3") == 1
    assert not (tmp_path / "out").exists()


def test_alone_beside_several_gpus_it_says_what_to_do(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert main(["pretrain", *arguments, "--steps", "6", "--out", str(tmp_path / "out")]) == 2
    said = "4 are visible; start it with torchrun --nproc-per-node 4, or choose one with CUDA_VISIBLE_DEVICES=0"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="and 4 are visible; choose one with CUDA_VISIBLE_DEVICES=0"):
        ranks.check_one_gpu()  # as fine-tuning asks, which one process does
    monkeypatch.setenv("WORLD_SIZE", "4")
    ranks.check_one_gpu()


def test_other_commands_are_not_for_several_processes(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["placements"]) == 2
    assert "only mixln pretrain and reproduce train one model on several devices" in capsys.readouterr().err


def test_variables_of_a_launcher_that_are_empty_mean_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert main(["placements"]) == 0


def _appears(folder: Path, pattern: str, process: subprocess.Popen[str]) -> list[Path]:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        found = [path for path in folder.glob(pattern) if path.stat().st_size]
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])
