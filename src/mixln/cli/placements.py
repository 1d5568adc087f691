"""`mixln placements` and `mixln placements show`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mixln.nn.schemes import SCHEMES
from mixln.placement import MODIFIERS, ZOO, draw, placement
from mixln.placement.preflight import warnings


@dataclass(frozen=True, kw_only=True)
class List:
    """Lists the placements with their formulas and sources."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        console = Console()
        table = Table(
            title="Placements (N a norm, A attention, F the feed-forward, l the layer, L layers)",
            box=None,
            pad_edge=False,
        )
        for column in ("name", "is called", "one layer", "init", "source"):
            table.add_column(column, overflow="fold", no_wrap=column == "name")
        for entry in ZOO.values():
            table.add_row(
                entry.name + entry.arguments.split(" ")[0], entry.title, entry.formula, entry.init, entry.source
            )
        console.print(table, highlight=False, markup=False)
        console.print("\nIn front of any of them, with a +:", highlight=False)
        for modifier in MODIFIERS.values():
            console.print(
                f"  {modifier.name + modifier.arguments:<15} {modifier.title} ({modifier.source})",
                highlight=False,
                markup=False,
            )
        console.print("\nInitialisations, for --init (each placement has its recommended one):", highlight=False)
        for scheme in SCHEMES.values():
            console.print(f"  {scheme.name:<15} {scheme.rule} ({scheme.source})", highlight=False, markup=False)
        console.print(
            "\nMixtures: post*3,pre*9 is 3 layers, then 9; hybrid**2,pre is 2 layers of hybrid*, then pre for the rest.\n"
            'Layer by layer: mixln placements show "mix(0.25)" --layers 12',
            highlight=False,
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draws one placement layer by layer."""

    placement: Annotated[str, tyro.conf.Positional]
    """For example pre, "mix(0.25)", "hybrid*", "post*3,pre*9" or qknorm+pre."""
    layers: int = 12
    """Layers of the model."""

    def run(self) -> int:
        built = placement(self.placement, self.layers)
        print(f"{built.name}, {self.layers} layers, recommended init: {built.init}\n")
        print(draw(built))
        if built.name.split("(")[0] in ZOO:
            entry = ZOO[built.name.split("(")[0]]
            print(f"\n{entry.title} ({entry.source}). {entry.notes}".rstrip())
        for warning in warnings(built, init=built.init, warmup_steps=1):
            print(f"\nwarning: {warning}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Lists the placements, or draws one: `mixln placements show "mix(0.25)" --layers 12`."""

    command: (
        Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    ) = field(default_factory=List)

    def run(self) -> int:
        return self.command.run()
