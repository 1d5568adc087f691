"""`mixln pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mixln.cli.compare import exit_code, show
from mixln.compare.settings import PretrainSettings
from mixln.launch import launched


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainSettings):
    __doc__ = PretrainSettings.__doc__
    INTERRUPTED: ClassVar[str] = (
        "run the same command again to go on from the last checkpoint; with as many processes as you like"
    )

    def run(self) -> int:
        """Trains, prints the result, and writes the report; of several processes, rank 0 prints and writes."""
        from mixln.memory import keep_freed_memory
        from mixln.training import ranks
        from mixln.training.trainers import per_process

        per_process(self.training, launched()[1])
        ranks.check_one_gpu(shareable=True)
        ranks.meet()
        keep_freed_memory()
        from mixln.compare.together import Together, follow

        if not ranks.first():
            return follow()
        together = Together(self.parallel)
        try:
            return exit_code(show(self.comparison(), together))
        finally:
            together.dismiss()
