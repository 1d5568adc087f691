"""What is shown while a comparison runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mixln.cli.progress import LiveDisplay, PlainDisplay, ProgressEstimate, display
from mixln.compare.execution.runner import Progress
from mixln.compare.execution.trial_job import TrialJob
from mixln.compare.results import VersionChange
from mixln.compare.settings import CompareSettings
from mixln.report.wording.warnings import sentence
from mixln.runs.trials import Trial, TrialResult

TRIAL = Trial(placement="mix(0.25)", init="normal", learning_rate=3e-3, seed=1)


def running(trial: Trial = TRIAL, **metrics) -> Progress:
    job = TrialJob(trial=trial, folder=Path("trial"), settings=CompareSettings(), config={}, data=Path("text"))
    return Progress(job=job, metrics=metrics)


def ended(**changes) -> TrialResult:
    facts = {"status": "finished", "step": 300, "tokens": 1, "loss": 2.0, "bits_per_byte": 1.0, "seconds": 75.0}
    return TrialResult(trial=TRIAL, **{**facts, "tokens_per_second": 10.0, **changes})


def test_the_display_fits_the_console():
    assert type(display(Console(file=io.StringIO()), "language")) is PlainDisplay
    assert type(display(Console(file=io.StringIO(), force_terminal=True), "vision")) is LiveDisplay


def course(elapsed: float, *, trials: int = 4, done: int = 0, steps: int = 100) -> ProgressEstimate:
    """A course that began `elapsed` seconds ago."""
    made = ProgressEstimate(trials, done, steps)
    made.began -= elapsed
    return made


def test_the_time_left_follows_from_the_steps_done():
    """Of 400 steps 40 took 10 s; 360 are left."""
    made = course(0)
    made.left([running(step=0)])
    made.began -= 10
    assert made.left([running(step=40)]) == "1 min 30 s left"


def test_steps_done_before_the_start_do_not_count_as_speed():
    """It went on at step 50 of the first of two trials, and made 10 steps in 10 s; 140 are left."""
    made = course(0, trials=2)
    made.left([running(step=50)])
    made.began -= 10
    assert made.left([running(step=60)]) == "2 min 20 s left"


def test_a_trial_that_ended_counts_with_all_its_steps():
    made = course(0, trials=2)
    made.left([running(step=0)])
    made.end_trial(ended())
    made.began -= 20
    assert made.left([]) == "20 s left"


def test_a_resumed_trial_that_ended_counts_with_the_steps_since_it_went_on():
    """50 steps in 50 s; the 100 of the other trial are left."""
    made = course(0, trials=2)
    made.left([running(step=50)])
    made.end_trial(ended())
    made.began -= 50
    assert made.left([]) == "1 min 40 s left"


@pytest.mark.parametrize("elapsed", [0, 60])
def test_nothing_is_said_before_anything_is_known(elapsed):
    assert course(elapsed).left([running(step=0)]) == ""
    assert course(elapsed).left([]) == ""


def plain() -> tuple[PlainDisplay, io.StringIO]:
    file = io.StringIO()
    return PlainDisplay(Console(file=file, width=40), "language"), file


def test_a_warning_is_a_line():
    shown, file = plain()
    shown.warn(VersionChange(package="[bold]torch", before="2.12.0", now="2.13.0"))
    warning = sentence(VersionChange(package="[bold]torch", before="2.12.0", now="2.13.0"))
    assert file.getvalue() == f"warning: {warning}\n"


def test_plain_lines_tell_the_course():
    shown, file = plain()
    shown.begin(3, 1, 300)
    shown.finished(ended())
    shown.finished(ended(status="diverged", loss=None, reason="the training loss is not finite"))
    shown.end()
    assert file.getvalue().splitlines() == [
        "trials: 1 of 3 done, 2 to run, 300 steps each",
        "trial 2 of 3: mix(0.25), lr 0.003, seed 1: finished, perplexity 7.4, 1 min 15 s",
        "trial 3 of 3: mix(0.25), lr 0.003, seed 1: diverged (the training loss is not finite), 1 min 15 s",
    ]


def test_plain_lines_about_running_trials_come_now_and_then():
    shown, file = plain()
    shown.begin(1, 0, 300)
    shown.watch([running(step=20, loss=3.5, tokens_per_second=1234.5)])
    assert "running" not in file.getvalue()
    shown.last -= 31
    for _ in range(3):
        shown.watch([running(step=30, loss=3.25, tokens_per_second=1234.5)])
    lines = [line for line in file.getvalue().splitlines() if line.startswith("running")]
    assert lines == ["running: mix(0.25), lr 0.003, seed 1: step 30 of 300, loss 3.250, 1,234 tokens/s"]


def test_a_live_table_is_drawn_and_taken_away():
    file = io.StringIO()
    shown = LiveDisplay(Console(file=file, force_terminal=True, width=120), "language")
    shown.begin(2, 0, 300)
    shown.watch([running(step=30, loss=3.25, tokens_per_second=1234.5), running(step=0)])
    shown.live.refresh()
    shown.finished(ended())
    shown.end()
    said = file.getvalue()
    for part in ("mix(0.25), lr 0.003, seed 1", "30/300", "3.250", "1,234", "0 of 2 trials done", "trial 1 of 2"):
        assert part in said
    assert json.dumps(said[-20:]).count("300") == 0
