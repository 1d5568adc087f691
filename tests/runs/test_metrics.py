"""The rows that a training writes: plain JSON, whole lines, and none from after the checkpoint that it resumes from."""

from __future__ import annotations

import json
import math

import pytest

from mixln.runs.checkpoints import seal
from mixln.runs.metrics import MetricsFile, read_metrics
from mixln.training.resuming import resumption

ROWS = [{"step": step, "loss": 5.0 - step} for step in (1, 2, 3)]


@pytest.fixture
def path(tmp_path):
    """A file with the three rows."""
    file = MetricsFile(tmp_path / "metrics.jsonl", resume_step=0)
    for row in ROWS:
        file.append(row)
    return file.path


def test_rows_come_back_in_order(path):
    assert read_metrics(path) == ROWS
    assert len(path.read_text().splitlines()) == 3


def test_a_file_that_does_not_exist_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("tail", ['{"step": 4, "lo', '{"step": 4}{', "\x00\x00"])
def test_a_half_written_last_line_is_left_out(path, tail):
    with path.open("a") as file:
        file.write(tail)
    assert read_metrics(path) == ROWS


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_resuming_keeps_the_rows_up_to_the_checkpoint(path, step):
    file = MetricsFile(path, resume_step=step)
    assert file.rows == read_metrics(path) == ROWS[:step]
    file.append({"step": step + 1, "loss": 0.5})
    assert read_metrics(path) == file.rows == [*ROWS[:step], {"step": step + 1, "loss": 0.5}]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_written_as_null(tmp_path, value):
    file = MetricsFile(tmp_path / "metrics.jsonl", resume_step=0)
    file.append({"step": 1, "loss": value, "gradient_norms": {"attention": [value, 1.0]}})
    written = json.loads(file.path.read_text(), parse_constant=no_constant)
    assert written == {"step": 1, "loss": None, "gradient_norms": {"attention": [None, 1.0]}} == file.rows[0]


def test_rows_that_do_not_reach_a_checkpoint_do_not_belong_to_it(tmp_path, news):
    MetricsFile(tmp_path / "metrics.jsonl", resume_step=0).append({"step": 5, "loss": 1.0})
    for step in (5, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        seal(tmp_path / f"checkpoint-{step}")
    found, metrics = resumption(tmp_path)
    assert found == tmp_path / "checkpoint-5"
    assert metrics.rows == [{"step": 5, "loss": 1.0}]
    assert "metrics.jsonl does not reach step 9" in news.messages[0]
