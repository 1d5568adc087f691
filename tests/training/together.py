"""What the processes that torchrun starts do in the tests: one training after the other, as a file says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from mixln.data.text import Text
from mixln.errors import Stopped
from mixln.quiet import quiet
from mixln.training import pretrain, ranks, stopping
from mixln.training.callbacks import Checkpoints
from tests import small


class StoppedAt(Checkpoints):
    """Is told to stop, in one process only, at this step."""

    step = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == self.step and ranks.rank() == ranks.size() - 1:
            stopping._asked = stopping.SIGNALS[0]
        super().on_step_end(args, state, control, **more)


def train(text: Text, folder: str, *, stop: int = 0, placement: str = "mix(0.5)", **settings: Any) -> None:
    """One training; with `stop` it is ended at this step, with a checkpoint.

    :param settings: those of :func:`tests.small.train`; `model` as entries of a config.
    """
    StoppedAt.step = stop
    pretrain.Checkpoints = StoppedAt if stop else Checkpoints
    model = {"model_type": "llama", **small.SIZES, **settings.pop("model", {})}
    config = AutoConfig.for_model(model.pop("model_type"), **model)
    try:
        small.train(text, Path(folder), placement, model=config, **settings)
        assert not stop
    except Stopped:
        assert stop
    finally:
        pretrain.Checkpoints = Checkpoints
        stopping._asked = None


if __name__ == "__main__":
    ranks.meet()
    given = json.loads(Path(sys.argv[1]).read_text())
    text = Text.load(Path(given["text"]))
    with quiet():
        for settings in given["trainings"]:
            train(text, **settings)
    ranks.part()
