"""`mixln convert`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from mixln.cli.checkpoint import check_new, one_source, write
from mixln.cli.terminal import Terminal
from mixln.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a stock checkpoint to a placed one with the same outputs, or a placed one to a stock one if that is exact.

    For example: mixln convert HuggingFaceTB/SmolLM2-135M --out placed, and mixln convert placed --out stock.
    Also reads checkpoints of the Mix-LN authors' code, with --placement.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a folder, a GGUF file, or a trial of mixln compare."""
    out: Path
    """Folder for the checkpoint; it must not exist yet."""
    placement: str | None = None
    """For a checkpoint of the Mix-LN authors, the placement with which it was trained, for example "mix(0.25)", which their files do not
    contain. For a stock model, the placement of its family: only stock, or its name in the zoo, is exact."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""

    def run(self) -> int:
        """Converts the model, checks that its outputs are the same, and writes it."""
        check_new(self.out)
        terminal = Terminal()
        terminal.loading()
        from mixln.hosts import family
        from mixln.hosts.convert import from_mix_ln, is_mix_ln, place, unplace
        from mixln.hosts.sources import load, own_precision
        from mixln.quiet import quiet

        # The authors' checkpoints are pickles; they are read without executing code from them.
        source = one_source(self.model, self.cache, convertible=True)
        family(source.config)
        folder = Path(source.path)
        with quiet():
            if source.config.model_type.startswith("placed_"):
                if self.placement is not None:
                    raise SettingsError(f"placement is given by the checkpoint {self.model}; remove --placement")
                model = unplace(load(source, dtype=own_precision(source), whole=True))
            elif is_mix_ln(folder, source.config):
                if self.placement is None:
                    raise SettingsError(
                        f"placement must be given for {self.model}, since files of the Mix-LN authors' code do not contain it; "
                        'for example --placement "mix(0.25)"'
                    )
                model = from_mix_ln(folder, source.config, self.placement)
            else:
                stock = load(source, dtype=own_precision(source), whole=True)
                model = place(stock, self.placement or "stock")
        write(model, source, self.out)
        terminal.line(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters: {self.out}")
        return 0
