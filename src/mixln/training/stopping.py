"""SIGTERM, by which a preemptible machine says that it goes, and Ctrl-C: the training is saved at its next record and ended."""

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
"""The signal that was sent."""


def asked() -> bool:
    """Whether this process was told to stop."""
    return _asked is not None


def stopped(*late: str) -> Stopped:
    """What to raise when all is saved.

    :param late: what was not, in words.
    """
    return Stopped(_asked or signal.SIGTERM, *late)


def listen() -> None:
    """From now on SIGTERM is only taken note of, and Ctrl-C nothing: in a worker, which its driver ends."""
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def listening() -> Iterator[None]:
    """Within it both are only taken note of; a second Ctrl-C interrupts. In a thread that is not the main one it changes nothing."""
    global _asked
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
        os.write(2, b"saving at the next record; Ctrl-C once more ends it at once\n")
    _asked = number
