"""The interface of a comparison's progress display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mixln.compare.execution.runner import Progress
from mixln.compare.results import RunWarning
from mixln.runs.trials import TrialResult


class Display(Protocol):
    """Shows the progress of a comparison."""

    def warn(self, warning: RunWarning) -> None:
        """Shows a warning that a reader of the results must know."""

    def begin(self, trials: int, done: int, steps: int) -> None:
        """Called before the first trial starts.

        :param trials: number of all trials.
        :param done: number of trials that ended in earlier runs.
        :param steps: optimizer steps per trial.
        """

    def watch(self, running: Sequence[Progress]) -> None:
        """Called about twice a second, with the running trials."""

    def finished(self, result: TrialResult) -> None:
        """A trial has ended."""

    def end(self) -> None:
        """All trials have ended, or the comparison was interrupted."""
