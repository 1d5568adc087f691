"""`mixln pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tyro

from mixln.cli.compare import announce, exit_code, show
from mixln.cli.given import given
from mixln.cli.stored import defaults, stored_in
from mixln.compare.settings import CompareSettings, PretrainSettings
from mixln.compare.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainSettings):
    __doc__ = PretrainSettings.__doc__
    TOGETHER: ClassVar[bool] = True
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to resume from the last checkpoint, with any number of processes"
    )

    def run(self) -> int:
        """Trains, prints the result, and writes the report. Of several processes, rank 0 prints and writes."""
        from mixln.compare.execution.torchrun import on_all

        announce(self.out)
        return on_all(self.parallel, [self.training], lambda workers: exit_code(show(self.comparison(), workers)))


def trained(arguments: list[str]) -> Any:
    """The settings of the experiment in `--out`, as defaults of the options that are not given.

    :raises StoreError: if it is corrupt.
    """
    options = given(arguments)
    out = Path(options.get("out") or Pretrain.out)
    present = stored_in(out)
    if present is None or task_of(present).name != CompareSettings.task:
        return tyro.MISSING_NONPROP
    return defaults(Pretrain, present, out, options)
