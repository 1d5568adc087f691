"""What the processes that torchrun starts do in the tests: one training after the other, as a file says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoConfig

from mixln.data.text import Text
from mixln.errors import Stopped
from mixln.quiet import quiet
from mixln.training import ranks, run, stopping
from mixln.training.callbacks import Checkpoints
from tests import small

MARKED = 0.125
"""The probability of a dropout whose masks are written down."""


class StoppedAt(Checkpoints):
    """Is told to stop, in one process only, at this step."""

    step = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == self.step and ranks.rank() == ranks.size() - 1:
            stopping._asked = stopping.SIGNALS[0]
        super().on_step_end(args, state, control, **more)


@contextmanager
def masks(folder: str) -> Iterator[None]:
    """Writes down which features the first dropout of each training step keeps in this process."""
    kept: list[list[bool]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Dropout) and module.training and module.p == MARKED:
            kept.append((output != 0).flatten().tolist())

    handle = register_module_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
    if kept:
        (Path(folder) / f"masks_{ranks.rank()}.json").write_text(json.dumps(kept))


def train(text: Text, folder: str, *, stop: int = 0, placement: str = "mix(0.5)", **settings: Any) -> None:
    """One training; with `stop` it is ended at this step, with a checkpoint.

    :param settings: those of :func:`tests.small.train`; `model` as entries of a config.
    """
    StoppedAt.step = stop
    run.Checkpoints = StoppedAt if stop else Checkpoints
    model = {"model_type": "llama", **small.SIZES, **settings.pop("model", {})}
    config = AutoConfig.for_model(model.pop("model_type"), **model)
    try:
        with masks(folder):
            small.train(text, Path(folder), placement, model=config, **settings)
        assert not stop
    except Stopped:
        assert stop
    finally:
        run.Checkpoints = Checkpoints
        stopping._asked = None


if __name__ == "__main__":
    ranks.meet()
    given = json.loads(Path(sys.argv[1]).read_text())
    text = Text.load(Path(given["text"]))
    with quiet():
        for settings in given["trainings"]:
            train(text, **settings)
    ranks.part()
