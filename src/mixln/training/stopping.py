"""SIGTERM, by which a preemptible machine says that it goes: the training is saved at its next record and ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixln.errors import Stopped

_asked = threading.Event()


def asked() -> bool:
    """Whether this process was sent SIGTERM."""
    return _asked.is_set()


def listen() -> Any:
    """From now on SIGTERM is only taken note of; returns the handler that it had."""
    return signal.signal(signal.SIGTERM, _note)


def _note(*_: Any) -> None:
    _asked.set()


@contextmanager
def listening() -> Iterator[None]:
    """Within it, SIGTERM is only taken note of. In a thread that is not the main one it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = listen()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if before is not _note:
            _asked.clear()


class StopWhenAsked(TrainerCallback):
    """Saves and ends the training at the first record after SIGTERM; of several processes, when one of them was sent it.

    At a record nothing is lost that the Trainer keeps between two of them.
    """

    def __init__(self) -> None:
        self.stopped = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % state.logging_steps or state.global_step >= state.max_steps:
            return
        stop = asked()
        if distributed.is_available() and distributed.is_initialized():
            flag = torch.tensor(int(stop), device=args.device)
            distributed.all_reduce(flag, distributed.ReduceOp.MAX)
            stop = bool(flag.item())
        if stop:
            self.stopped = control.should_save = control.should_training_stop = True

    def check(self) -> None:
        """:raises Stopped: if the training was ended before its last step."""
        if self.stopped:
            raise Stopped
