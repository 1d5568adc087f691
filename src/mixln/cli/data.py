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
    INTERRUPTED: ClassVar[str] = "the files that are done stay; run the same command again to go on"

    action: Annotated[Literal["prepare"], tyro.conf.Positional]
    """What to do."""

    def run(self) -> int:
        """Prepares, and says what there is now."""
        from mixln.data.shards import prepare_shards
        from mixln.quiet import quiet

        terminal = Terminal()
        with quiet():
            info = prepare_shards(self).info
        terminal.line(
            f"{info.words}: {info.train_tokens:,} training tokens, {info.held_out_tokens:,} held out, vocabulary {info.vocabulary_size:,}"
        )
        terminal.line(f"train with: --data {self.out} --sequence-length {self.sequence_length}")
        return 0
