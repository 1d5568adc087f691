"""`mixln prune`."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mixln.errors import DataError, SettingsError, StoreError
from mixln.files import check_writable, folder_atomic

MOST = 10_000
"""More layers than any model has."""


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Write a smaller checkpoint without some of a model's layers; the others keep their weights and their placement.

    For example: mixln prune HuggingFaceTB/SmolLM2-135M --layers 21-24 --out smaller
    """

    model: Annotated[str, tyro.conf.Positional]
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
        if self.out.exists():
            raise StoreError(f"out {self.out} exists already; name a folder that does not")
        check_writable(self.out)
        from mixln.compare.sources import find
        from mixln.diagnostics.prune import prune
        from mixln.diagnostics.stack import find_stack
        from mixln.hosts.sources import image_processor_of, load, quiet, tokenizer_of

        sources = find(self.model, cache=self.cache.expanduser(), say=print)
        if len(sources) > 1:
            raise SettingsError(f"model {self.model} is a whole comparison; name one of its trials")
        (source,) = sources
        own = None if source.gguf else source.config.dtype
        dtype = self.precision or str(own or "float32").removeprefix("torch.")
        stack = find_stack(load(source, dtype=dtype, whole=True, say=print), self.layer_list)
        smaller = prune(stack, removed)
        with quiet(), folder_atomic(self.out) as folder:
            smaller.save_pretrained(folder)
            with suppress(DataError):  # a checkpoint may have none
                (image_processor_of if source.takes_images else tokenizer_of)(source).save_pretrained(folder)
        parameters = [sum(p.numel() for p in model.parameters()) for model in (stack.model, smaller)]
        print(
            f"{len(stack)} layers became {len(stack) - len(removed)}, {parameters[0]:,} parameters {parameters[1]:,}: {self.out}"
        )
        return 0


def layer_numbers(text: str) -> set[int]:
    """Reads `3,7,21-24`.

    :raises SettingsError: if it is written otherwise.
    """
    found: set[int] = set()
    for part in text.split(","):
        read = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not read or int(read[2] or read[1]) < int(read[1]) or int(read[1]) < 1 or int(read[2] or 1) > MOST:
            raise SettingsError(f"layers must look like 3,7,21-24, counted from 1 and up to {MOST}, got {text!r}")
        found |= set(range(int(read[1]), int(read[2] or read[1]) + 1))
    return found
