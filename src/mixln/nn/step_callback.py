"""Does after every step of transformers' Trainer what a placement needs.

A module of its own: importing transformers' trainer before PEFT has been imported would be a circular import, and the layers are
imported as soon as transformers is.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mixln.nn.ramp import set_step


class StepCallback(TrainerCallback):
    """Moves the step of `prores+…`, and keeps the matrices of `ngpt` unit vectors, in a `transformers.Trainer`; see :func:`set_step`.

    :param done: optimizer steps before this training, for one that continues a model with a new Trainer.
    """

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: Any = None, **_: Any
    ) -> None:
        set_step(model, self.done + state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: Any = None, **_: Any
    ) -> None:
        set_step(model, self.done + state.global_step)
