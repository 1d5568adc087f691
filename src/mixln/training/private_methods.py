"""Every override of what transformers keeps private: each calls a method without an underscore, which trainers define.

Checked on transformers 5.17, 5.23 and 5.24, trl 1.16 and accelerate 1.15; `tests/libraries/test_signatures.py` fails where a method is
gone or takes other arguments. For none of these is there a public way:

    _get_output_dir, _save_checkpoint     a checkpoint is written under another name and takes its own when it is whole. `on_save` comes
                                          too late: a process that is killed before it leaves half a checkpoint with a whole one's name
    _save_optimizer_and_scheduler,        one form for DDP and FSDP2, that any number of processes reads. Trainer's differs between
    _load_optimizer_and_scheduler,        them, and pickles the optimizer
    _load_from_checkpoint
    _save_rng_state                       a stream's position belongs to the same step as the random state
    _defer_fsdp_gradient_reduction        no argument turns it off
    masking_utils.find_packed_sequence_   called in every forward pass without an attention mask; it reads from the device
    indices
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, masking_utils


class HookedTrainer(Trainer):
    """A Trainer whose private steps call public ones."""

    unfinished: str
    """Folder, within that of the training, in which a checkpoint is written before it has its name."""

    def checkpoint_written(self) -> None:
        """Called by every process when the checkpoint of this step lies in :attr:`unfinished`."""

    def _get_output_dir(self, trial: Any) -> str:
        return os.path.join(super()._get_output_dir(trial), self.unfinished)  # `_save_checkpoint` alone asks

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.checkpoint_written()


class ResumableTrainer(HookedTrainer):
    """A Trainer that saves and loads its state in a form of its own."""

    def save_state_in(self, checkpoint: Path) -> None:
        """Writes optimizer and learning-rate schedule."""
        raise NotImplementedError

    def load_state_from(self, checkpoint: Path) -> None:
        """Reads them."""
        raise NotImplementedError

    def load_weights_from(self, checkpoint: Path) -> None:
        """Reads the model's weights."""
        raise NotImplementedError

    def random_state_saved(self, checkpoint: Path) -> None:
        """Called by every process when its random state is in a checkpoint."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self.save_state_in(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_state_from(Path(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_weights_from(Path(resume_from_checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.random_state_saved(Path(output_dir))

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Defers nothing: until the last part of the batch each process would keep whole gradients."""
        return nullcontext()


@contextmanager
def each_row_one_sequence() -> Iterator[None]:
    """Within it transformers does not wait for the device to see whether a row holds several sequences, which it otherwise does in
    every forward pass: it looks for positions that begin anew, and here the model itself counts them."""
    look = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = look
