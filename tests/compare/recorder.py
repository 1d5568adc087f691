"""A display that remembers."""

from __future__ import annotations

from collections.abc import Sequence

from mixln.compare.results import TrialResult
from mixln.compare.runner import Progress


class Recorder:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[int, int, int]] = []
        self.watched: list[Progress] = []
        self.ended: list[TrialResult] = []
        self.ends = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, trials: int, done: int, steps: int) -> None:
        self.begun.append((trials, done, steps))

    def watch(self, running: Sequence[Progress]) -> None:
        self.watched.extend(running)

    def finished(self, result: TrialResult) -> None:
        self.ended.append(result)

    def end(self) -> None:
        self.ends += 1
