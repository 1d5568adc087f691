"""Comparisons that are watched: a display that remembers, and one in another process."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mixln.compare.execution.runner import Progress
from mixln.compare.results import RunWarning
from mixln.compare.settings import CompareSettings
from mixln.runs.trials import TrialResult


class Recorder:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.warned: list[RunWarning] = []
        self.begun: list[tuple[int, int, int]] = []
        self.watched: list[Progress] = []
        self.ended: list[TrialResult] = []
        self.ends = 0
        self.logged: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[Recorder]:
        """Keeps what mixln logs within, too; for fixtures of a module, which cannot use `caplog`."""
        logger, handler = logging.getLogger("mixln"), logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield self
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)

    def warn(self, warning: RunWarning) -> None:
        self.warned.append(warning)

    def begin(self, trials: int, done: int, steps: int) -> None:
        self.begun.append((trials, done, steps))

    def watch(self, running: Sequence[Progress]) -> None:
        self.watched.extend(running)

    def finished(self, result: TrialResult) -> None:
        self.ended.append(result)

    def end(self) -> None:
        self.ends += 1


def until_it_trains(
    run: Callable[[CompareSettings], None], settings: CompareSettings, trial: str
) -> multiprocessing.process.BaseProcess:
    """Starts a comparison in another process, and waits until a trial of it has written some rows."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=(settings,))
    process.start()
    rows = settings.out / trial / "metrics.jsonl"
    until = time.monotonic() + 180
    while time.monotonic() < until and process.is_alive() and not (rows.exists() and rows.stat().st_size > 2000):
        time.sleep(0.01)
    return process
