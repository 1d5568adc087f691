"""`mixln prune`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from mixln.bounds import Layers, check_numbers
from mixln.cli.checkpoint import check_new, one_source, write
from mixln.cli.terminal import Terminal
from mixln.data.settings import NamedText
from mixln.diagnostics.budget import budget_of, within
from mixln.diagnostics.settings import ChoiceSettings
from mixln.errors import SettingsError
from mixln.files import cache_folder
from mixln.placement import MOST_LAYERS

if TYPE_CHECKING:
    from mixln.diagnostics.stack import Stack
    from mixln.hosts.sources import Source


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Remove layers from a model and write a smaller checkpoint; the other layers keep their weights and placement.

    For example: mixln prune HuggingFaceTB/SmolLM2-135M --layers 21-24 --out smaller, or, to let it choose the layers,
    mixln prune HuggingFaceTB/SmolLM2-135M --budget 75% --out smaller
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a folder, a GGUF file, or a trial of mixln compare."""
    layers: str | None = None
    """Layers to remove, counted from 1 as in the report of diagnose: 21-24, or 3,7,21-24."""
    budget: str | None = None
    """Instead of --layers: choose as few layers as make the model fit a share of its parameters (75%), a number of parameters (100M)
    or the memory of its weights as written (400MB)."""
    remove: Layers | None = None
    """Instead of --layers: choose this many layers."""
    out: Path
    """Folder for the checkpoint; it must not exist yet."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the written weights. By default that of the model, or float32 for a GGUF file."""
    layer_list: str | None = None
    """Name of the list of layers in the model, for example model.layers; needed only if it is not found."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for tokenized text and converted GGUF files."""
    text: Annotated[NamedText, tyro.conf.arg(name="")] = field(default_factory=NamedText)
    choice: Annotated[ChoiceSettings, tyro.conf.arg(name="")] = field(default_factory=ChoiceSettings)
    UNUSED_WITH: ClassVar[dict[str, tuple[str, ...]]] = {
        "layers": tuple(item.name.replace("_", "-") for kind in (NamedText, ChoiceSettings) for item in fields(kind))
    }

    def __post_init__(self) -> None:
        check_numbers(self)
        ways = [name for name in ("layers", "budget", "remove") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise SettingsError(
                f"layers, budget and remove: exactly one says what to remove, got {' and '.join(ways) or 'none'}"
            )
        if self.layers is not None:
            layer_numbers(self.layers)
        if self.budget is not None:
            budget_of(self.budget)

    def run(self) -> int:
        """Prunes the model, checks it against the complete one, and writes it."""
        check_new(self.out)
        terminal = Terminal()
        terminal.loading()
        from mixln.diagnostics.prune import prune
        from mixln.diagnostics.stack import find_stack
        from mixln.hosts.sources import load, own_precision

        source = one_source(self.model, self.cache)
        dtype = self.precision or own_precision(source)
        stack = find_stack(load(source, dtype=dtype, whole=True), self.layer_list)
        removed = self._chosen(source, stack, terminal) if self.layers is None else layer_numbers(self.layers)
        smaller = prune(stack, removed)
        write(smaller, source, self.out)
        parameters = [sum(p.numel() for p in model.parameters()) for model in (stack.model, smaller)]
        terminal.line(
            f"{len(stack)} → {len(stack) - len(removed)} layers, {parameters[0]:,} → {parameters[1]:,} parameters: {self.out}"
        )
        return 0

    def _chosen(self, source: Source, stack: Stack, terminal: Terminal) -> set[int]:
        """The layers that the budget, or the number to remove, leaves to be chosen, counted from 1."""
        from mixln.diagnostics.models import choose_layers
        from mixln.diagnostics.selection import check_remove, count
        from mixln.memory import keep_freed_memory
        from mixln.report.wording.removal import chosen

        keep_freed_memory()
        if self.remove is not None:
            check_remove(stack, "layers", self.remove)
            enough = count(self.remove)
        else:
            enough = within(budget_of(str(self.budget)), stack)
        selection = choose_layers(
            source, stack, enough, self.choice, self.text, cache=cache_folder(self.cache), layer_list=self.layer_list
        )
        terminal.line(chosen(selection, selection.sets[0]))
        return {part.layer for part in selection.sets[0].parts}


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
