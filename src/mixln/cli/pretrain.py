"""`mixln pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mixln.cli.compare import exit_code, show
from mixln.compare.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainSettings):
    __doc__ = PretrainSettings.__doc__
    TOGETHER: ClassVar[bool] = True
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to go on from the last checkpoint; with as many processes as you like"
    )

    def run(self) -> int:
        """Trains, prints the result, and writes the report; of several processes, rank 0 prints and writes."""
        from mixln.compare.together import on_all

        return on_all(
            self.parallel, [self.training], lambda all_of_them: exit_code(show(self.comparison(), all_of_them))
        )
