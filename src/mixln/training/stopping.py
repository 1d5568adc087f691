"""SIGTERM, sent when a machine is preempted, and Ctrl-C: the training writes a checkpoint at its next logged step and stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mixln.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_asked: int | None = None
"""The signal that was received; `None` if there was none."""


def asked() -> bool:
    """Whether this process was told to stop."""
    return _asked is not None


def stopped(*late: str) -> Stopped:
    """The exception to raise after the checkpoint was written.

    :param late: descriptions of what was not saved.
    """
    return Stopped(_asked or signal.SIGTERM, *late)


def listen() -> None:
    """For a worker: SIGTERM is recorded from now on, and Ctrl-C is ignored, because the driver stops its workers."""
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def listening() -> Iterator[None]:
    """Context in which both signals are recorded; a second Ctrl-C interrupts. Has no effect outside the main thread."""
    global _asked
    # Python allows signal handlers only in the main thread; a worker that called `listen` keeps its handlers.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _note:
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = None


def _note(number: int, _: Any) -> None:
    global _asked
    if number == signal.SIGINT:
        if _asked is not None:
            raise KeyboardInterrupt
        # os.write is safe in a signal handler; print and logging are not.
        os.write(2, b"saving at the next logged step; press Ctrl-C again to stop at once\n")
    _asked = number
