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
    """Remove layers from a model and write a smaller checkpoint; the other layers keep their weights and placement.

    For example: mixln prune HuggingFaceTB/SmolLM2-135M --layers 21-24 --out smaller
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a folder, a GGUF file, or a trial of mixln compare."""
    layers: str
    """Layers to remove, counted from 1 as in the report of diagnose: 21-24, or 3,7,21-24."""
    out: Path
    """Folder for the checkpoint; it must not exist yet."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the written weights. By default that of the model, or float32 for a GGUF file."""
    layer_list: str | None = None
    """Name of the list of layers in the model, for example model.layers; needed only if it is not found."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""

    def __post_init__(self) -> None:
        layer_numbers(self.layers)

    def run(self) -> int:
        """Prunes the model, checks it against the complete one, and writes it."""
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
            f"{len(stack)} → {len(stack) - len(removed)} layers, {parameters[0]:,} → {parameters[1]:,} parameters: {self.out}"
        )
        return 0


def layer_numbers(text: str) -> set[int]:
    """Parses layer numbers such as `3,7,21-24`.

    :raises SettingsError: if the text has another form.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if (
            not match
            or int(match[2] or match[1]) < int(match[1])
            or int(match[1]) < 1
            or int(match[2] or 1) > MOST_LAYERS
        ):
            raise SettingsError(
                f"layers must look like 3,7,21-24, counted from 1 and up to {MOST_LAYERS}, got {text!r}"
            )
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers
