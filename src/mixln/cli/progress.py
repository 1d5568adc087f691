"""Progress of a comparison: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mixln.compare.display import Display
from mixln.compare.execution.runner import Progress
from mixln.compare.results import RunWarning
from mixln.compare.tasks import TASKS
from mixln.formats import duration
from mixln.report.wording.nouns import nouns
from mixln.report.wording.warnings import sentence
from mixln.runs.trials import Trial, TrialResult

PLAIN_SECONDS = 30.0
"""Seconds between two reports on the running trials without a terminal."""


def display(console: Console, task: str, ended: Callable[[TrialResult], str] | None = None) -> Display:
    """The display that fits the console.

    :param task: name of the task.
    :param ended: makes the line on a trial that has ended; by default, its status and metric.
    """
    return (LiveDisplay if console.is_terminal else PlainDisplay)(console, task, ended)


class ProgressEstimate:
    """Counts finished trials and estimates the remaining time from the optimizer steps since the start."""

    def __init__(self, trials: int, done: int, steps: int) -> None:
        self.trials, self.done, self.steps = trials, done, steps
        self.began = time.monotonic()
        self.at_start: dict[Trial, int] = {}
        self.ended_steps = 0

    def end_trial(self, result: TrialResult) -> None:
        self.done += 1
        self.ended_steps += self.steps - self.at_start.pop(result.trial, 0)

    def left(self, running: Sequence[Progress]) -> str:
        """The remaining time as text; empty until 10 steps and 10 seconds have passed, because the first steps are slow."""
        for progress in running:
            self.at_start.setdefault(progress.job.trial, progress.metrics.get("step", 0))
        now = sum(p.metrics.get("step", 0) - self.at_start[p.job.trial] for p in running)
        completed, elapsed = self.ended_steps + now, time.monotonic() - self.began
        if completed < 10 or elapsed < 10:
            return ""
        remaining = (self.trials - self.done) * self.steps - sum(p.metrics.get("step", 0) for p in running)
        return f"{duration(elapsed * remaining / completed)} left"


class PlainDisplay:
    """Prints one line per trial that ends, and every `PLAIN_SECONDS` one per running trial."""

    def __init__(self, console: Console, task: str, ended: Callable[[TrialResult], str] | None = None) -> None:
        self.console = console
        self.task: str = task
        self.ended = ended or partial(_ended, task=task)
        self.course = ProgressEstimate(0, 0, 1)
        self.last = time.monotonic()

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, warning: RunWarning) -> None:
        self._print(f"warning: {sentence(warning)}")

    def begin(self, trials: int, done: int, steps: int) -> None:
        self.course = ProgressEstimate(trials, done, steps)
        self._print(f"trials: {done} of {trials} done, {trials - done} to run, {steps} steps each")

    def watch(self, running: Sequence[Progress]) -> None:
        left = self.course.left(running)
        if time.monotonic() - self.last < PLAIN_SECONDS:
            return
        self.last = time.monotonic()
        for progress in running:
            self._print(f"running: {_words(progress, self.course.steps, self.task)}")
        if left:
            self._print(f"trials: {self.course.done} of {self.course.trials} done, {left}")

    def finished(self, result: TrialResult) -> None:
        self.course.end_trial(result)
        self._print(f"trial {self.course.done} of {self.course.trials}: {self.ended(result)}")

    def end(self) -> None:
        pass


class LiveDisplay(PlainDisplay):
    """A live table of the running trials, below the lines of those that ended."""

    def begin(self, trials: int, done: int, steps: int) -> None:
        super().begin(trials, done, steps)
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.live.start()

    def watch(self, running: Sequence[Progress]) -> None:
        course = self.course
        table = Table(box=None, pad_edge=False)
        for column in ("running", "step", "", "loss", f"{nouns(self.task).units}/s"):
            table.add_column(column, justify="left" if column in ("running", "") else "right")
        for progress in running:
            row, trial = progress.metrics, progress.job.trial
            step, loss, speed = row.get("step", 0), row.get("loss"), row.get("tokens_per_second")
            table.add_row(
                trial.label,
                f"{step}/{course.steps}",
                ProgressBar(total=course.steps, completed=step, width=20),
                "" if loss is None else f"{loss:.3f}",
                "" if speed is None else f"{speed:,.0f}",
            )
        left = course.left(running) if running else "workers are starting"
        summary = Text(f"{course.done} of {course.trials} trials done{', ' if left else ''}{left}")
        self.live.update(Group(table, summary) if running else summary)

    def end(self) -> None:
        self.live.stop()


def _words(progress: Progress, steps: int, task: str) -> str:
    row = progress.metrics
    text = f"{progress.job.trial.label}: step {row.get('step', 0)} of {steps}"
    if "loss" in row:
        text += f", loss {row['loss']:.3f}"
    if row.get("tokens_per_second"):
        text += f", {row['tokens_per_second']:,.0f} {nouns(task).units}/s"
    return text


def _ended(result: TrialResult, task: str) -> str:
    metric = TASKS[task].metrics.ranking
    text = f"{result.trial.label}: {result.status}"
    if (value := metric.value(result)) is not None:
        text += f", {metric.name} {metric.say_briefly(value)}"
    if result.reason:
        text += f" ({result.reason})"
    return f"{text}, {duration(result.seconds)}"
