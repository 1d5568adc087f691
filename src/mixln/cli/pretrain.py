"""`mixln pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from mixln.cli.compare import announce, exit_code, show
from mixln.cli.given import given
from mixln.cli.stored import defaults, stored_in
from mixln.cli.terminal import Terminal
from mixln.compare.settings import CompareSettings, PretrainSettings
from mixln.compare.tasks import task_of

if TYPE_CHECKING:
    from mixln.compare.execution.torchrun import TorchrunWorkers


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainSettings):
    __doc__ = PretrainSettings.__doc__
    TOGETHER: ClassVar[bool] = True
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to resume from the last checkpoint, with any number of processes"
    )

    checkpoint: Annotated[str | None, tyro.conf.arg(name="from", metavar="MODEL")] = None
    """Train this language model further, in place of new weights: a hub id, a folder, a GGUF file, or a trial of mixln compare. Its
    weights, config, placement and tokenizer are the checkpoint's, and the trained model is in the folder model of --out.
    --learning-rate is then 1e-4 and --out runs/continued by default."""

    def run(self) -> int:
        """Trains, prints the result, and writes the report. Of several processes, rank 0 prints and writes."""
        Terminal().loading()
        from mixln.compare.execution.torchrun import on_all

        if self.checkpoint is None:
            announce(self.out)
        return on_all(self.parallel, [self.training], self._compared if self.checkpoint is None else self._continued)

    def _compared(self, workers: TorchrunWorkers) -> int:
        return exit_code(show(self.comparison(), workers))

    def _continued(self, workers: TorchrunWorkers) -> int:
        """Trains the checkpoint further, and prints the held-out loss before and after."""
        terminal = Terminal()
        from mixln.cli.checkpoint import one_source
        from mixln.compare.continuation import continue_training
        from mixln.quiet import quiet
        from mixln.report.wording.training import continued
        from mixln.training.post_training_run import MODEL

        with quiet():
            outcome = continue_training(one_source(str(self.checkpoint), self.cache), self, workers.lead)
        for sentence in continued(outcome):
            terminal.note(sentence)
        if outcome.status == "diverged":
            return 1
        terminal.line(f"model: {self.out / MODEL}")
        return 0


CONTINUED = Pretrain(out=Path("runs/continued"), learning_rate=1e-4)
"""Defaults of a training that starts from a checkpoint."""


def trained(arguments: list[str]) -> Any:
    """The defaults of the options that are not given: with `--from` its own, else the settings of the experiment in `--out`.

    :raises StoreError: if it is corrupt.
    """
    options = given(arguments)
    if "from" in options:
        return CONTINUED
    out = Path(options.get("out") or Pretrain.out)
    present = stored_in(out)
    if present is None or task_of(present).name != CompareSettings.task:
        return tyro.MISSING_NONPROP
    return defaults(Pretrain, present, out, options)
