"""`mixln prune`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.cli.checkpoint import check_new, one_source, own_precision, write
from mixln.cli.terminal import Terminal
from mixln.errors import SettingsError
from mixln.placement import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Write a smaller checkpoint without some of a model's layers; the others keep their weights and their placement.

    For example: mixln prune HuggingFaceTB/SmolLM2-135M --layers 21-24 --out smaller
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a folder, a GGUF file, or a trial of mixln compare."""
    layers: str
    """Layers to remove, counted from 1 as in the report of diagnose: 21-24, or 3,7,21-24."""
    out: Path
    """Folder for the checkpoint; it must not exist yet."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the weights that are written. Left out, the model's own; of a GGUF file, float32."""
    layer_list: str | None = None
    """Name of the list of layers within the model, for example model.layers, where it is not found."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""

    def __post_init__(self) -> None:
        layer_numbers(self.layers)

    def run(self) -> int:
        """Prunes the model, checks it against the whole one, and writes it."""
        removed = layer_numbers(self.layers)
        check_new(self.out)
        from mixln.diagnostics.prune import prune
        from mixln.diagnostics.stack import find_stack
        from mixln.hosts.sources import load

        terminal = Terminal()
        source = one_source(self.model, self.cache)
        dtype = self.precision or own_precision(source)
        stack = find_stack(load(source, dtype=dtype, whole=True), self.layer_list)
        smaller = prune(stack, removed)
        write(smaller, source, self.out)
        parameters = [sum(p.numel() for p in model.parameters()) for model in (stack.model, smaller)]
        terminal.line(
            f"{len(stack)} layers became {len(stack) - len(removed)}, {parameters[0]:,} parameters {parameters[1]:,}: {self.out}"
        )
        return 0


def layer_numbers(text: str) -> set[int]:
    """Reads `3,7,21-24`.

    :raises SettingsError: if it is written otherwise.
    """
    found: set[int] = set()
    for part in text.split(","):
        read = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if not read or int(read[2] or read[1]) < int(read[1]) or int(read[1]) < 1 or int(read[2] or 1) > MOST_LAYERS:
            raise SettingsError(
                f"layers must look like 3,7,21-24, counted from 1 and up to {MOST_LAYERS}, got {text!r}"
            )
        found |= set(range(int(read[1]), int(read[2] or read[1]) + 1))
    return found
