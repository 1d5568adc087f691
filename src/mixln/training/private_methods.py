"""All overrides of private methods of transformers. Each calls a public method that trainers define.

Checked with transformers 5.17, 5.23 and 5.24, trl 1.16 and accelerate 1.15; `tests/libraries/test_signatures.py` fails if a method
disappears or takes other arguments. No public API exists for any of these:

    _get_output_dir, _save_checkpoint     a checkpoint is written under a temporary name and renamed when it is complete. `on_save` is
                                          too late: a process killed before it leaves an incomplete checkpoint under the final name
    _save_optimizer_and_scheduler,        one format for DDP and FSDP2, readable by any number of processes. The Trainer's differs
    _load_optimizer_and_scheduler,        between them and pickles the optimizer
    _load_from_checkpoint
    _save_rng_state                       a stream's position must be of the same step as the random state
    _defer_fsdp_gradient_reduction        no argument switches it off
    masking_utils.find_packed_sequence_   called in every forward pass without an attention mask; it synchronizes with the device
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
    """A Trainer whose private steps call public methods."""

    unfinished: str
    """Subfolder of the training's folder in which a checkpoint is written before it is renamed."""

    def checkpoint_written(self) -> None:
        """Called in every process when the checkpoint of this step is complete in :attr:`unfinished`."""

    def _get_output_dir(self, trial: Any) -> str:
        return os.path.join(super()._get_output_dir(trial), self.unfinished)  # only `_save_checkpoint` calls this

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.checkpoint_written()


class ResumableTrainer(HookedTrainer):
    """A Trainer with its own checkpoint format."""

    def save_state_in(self, checkpoint: Path) -> None:
        """Writes the state of the optimizer and the learning-rate schedule."""
        raise NotImplementedError

    def load_state_from(self, checkpoint: Path) -> None:
        """Reads the state that :meth:`save_state_in` wrote."""
        raise NotImplementedError

    def load_weights_from(self, checkpoint: Path) -> None:
        """Reads the model's weights."""
        raise NotImplementedError

    def random_state_saved(self, checkpoint: Path) -> None:
        """Called in every process after its random state was written to a checkpoint."""

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
        """Defers nothing: otherwise each process would keep unsharded gradients until the last micro-batch."""
        return nullcontext()


@contextmanager
def each_row_one_sequence() -> Iterator[None]:
    """Context in which transformers does not search the position ids for several sequences packed into a row.

    The search synchronizes with the device in every forward pass, and finds nothing if the model counts the positions itself.
    """
    search = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = search
