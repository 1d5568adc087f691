"""The interface of what shows the course of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mixln.compare.execution.runner import Progress
from mixln.compare.results import RunWarning
from mixln.runs.trials import TrialResult


class Display(Protocol):
    """What shows the course of a comparison."""

    def warn(self, warning: RunWarning) -> None:
        """What a reader of the results must know."""

    def begin(self, trials: int, done: int, steps: int) -> None:
        """:param trials: all of them; `done` have ended before; `steps` each."""

    def watch(self, running: Sequence[Progress]) -> None:
        """Called about twice a second."""

    def finished(self, result: TrialResult) -> None:
        """A trial has ended."""

    def end(self) -> None:
        """All have ended, or the comparison was cut off."""
