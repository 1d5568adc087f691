"""`mixln data prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from mixln.cli.terminal import Terminal
from mixln.data.settings import PrepareSettings


@dataclass(frozen=True, kw_only=True)
class Data(PrepareSettings):
    __doc__ = PrepareSettings.__doc__
    INTERRUPTED: ClassVar[str] = "finished files are kept; run the same command again to resume"

    action: Annotated[Literal["prepare"], tyro.conf.Positional]
    """The action: prepare."""

    def run(self) -> int:
        """Prepares the data, and prints their size."""
        terminal = Terminal()
        terminal.loading()
        from mixln.data.shards import prepare_shards
        from mixln.quiet import quiet

        with quiet():
            info = prepare_shards(self).info
        terminal.line(
            f"{info.words}: {info.train_tokens:,} training tokens, {info.held_out_tokens:,} held out, vocabulary {info.vocabulary_size:,}"
        )
        terminal.line(f"train with: --data {self.out} --sequence-length {self.sequence_length}")
        return 0
