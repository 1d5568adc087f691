"""`mixln placements`, `mixln placements show` and `mixln placements document`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mixln.bounds import Layers, check_numbers
from mixln.errors import PlacementError
from mixln.nn.schemes import INIT_MODIFIERS, SCHEMES
from mixln.placement import MODIFIERS, ZOO, Layer, Placement, draw, placement
from mixln.placement.preflight import risks
from mixln.placement.records import LEGEND
from mixln.placement.zoo import PRE


@dataclass(frozen=True, kw_only=True)
class List:
    """Lists the placements with their formulas and sources."""

    def run(self) -> int:
        print(LEGEND + "\n")
        for entry in ZOO.values():
            print(f"{entry.example:<16} {entry.title} ({entry.source}), init {entry.init}")
            print(f"{'':<16} {entry.formula}")
        print("\nModifiers, written in front of any placement, for example qknorm+pre or gpas+mix(0.25):\n")
        for modifier in MODIFIERS.values():
            print(f"{modifier.example:<20} {modifier.title}{f' ({modifier.source})' if modifier.source else ''}")
        print("\nInitialisations, for --init (each placement has its recommended one):\n")
        for scheme in SCHEMES.values():
            print(f"{scheme.name:<20} {scheme.rule} ({scheme.source})")
        for init in INIT_MODIFIERS.values():
            print(f"{f'{init.name}{init.arguments}+…':<20} {init.rule} ({init.source})")
        print(
            "\nMixtures: post*3,pre*9 is 3 layers of post, then 9 of pre; hybrid**2,pre is 2 layers of hybrid*, then pre for the rest.\n"
            'Layer by layer, with the published evidence: mixln placements show "mix(0.25)" --layers 12\n'
            "All placements in Markdown: mixln placements document"
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draws one placement layer by layer."""

    placement: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLACEMENT")]
    """For example pre, "mix(0.25)", "hybrid*", "post*3,pre*9" or qknorm+pre."""
    layers: Layers = 12
    """Number of layers of the model."""
    family: str = "llama"
    """Model family, for example qwen3, whose norms on q and k a placement keeps, or gemma3_text for stock; mixln families lists all."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def run(self) -> int:
        built, stock = self._build()
        print(f"{built.name}, {self.layers} layers, recommended init: {built.init}\n")
        print(draw(built))
        for name in dict.fromkeys(re.findall(r"[a-z][a-z0-9-]*\*?", re.sub(r"\(.*?\)", "", built.name))):
            if entry := ZOO.get(name) or MODIFIERS.get(name):
                print(f"\n{entry.title} ({entry.source or 'mixln'}). {entry.notes}".rstrip())
                for heading, text in entry.facts.items():
                    print(f"{heading}: {text}")
        if "(" in built.name:
            print("\nPublished evidence refers to the arguments used in the paper.")
        print(f"\n{LEGEND}")
        for risk in risks(built, init=built.init, stock=stock):
            print(f"\nwarning: {risk.message}")
        return 0

    def _build(self) -> tuple[Placement, Layer]:
        """The placement and a stock layer of the family.

        :raises PlacementError: if the family cannot be placed, with the reason; also for `stock` if its layers differ.
        """
        if self.family == "llama":  # no import of torch, which takes seconds
            return placement(self.placement, self.layers), PRE
        from mixln.hosts.families import host_of

        host = host_of(self.family.lower())
        if host.kinds and "stock" in self.placement:
            raise PlacementError(
                f"layers of {host.model_type} differ, {host.formula}, and its config says which is where; "
                "draw another placement than stock"
            )
        own = {"stock_init": host.stock_init, "stock_streams": host.own.entries(host.config())}
        return placement(self.placement, self.layers, stock=host.stock, **own), host.stock


@dataclass(frozen=True, kw_only=True)
class Document:
    """Prints all placements in Markdown."""

    def run(self) -> int:
        from mixln.cli.document import document

        print(document(), end="")
        return 0


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Lists the placements, or draws one: `mixln placements show "mix(0.25)" --layers 12`."""

    command: Annotated[
        Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
        | Annotated[Document, tyro.conf.subcommand("document", prefix_name=False)],
        tyro.conf.arg(name=""),
    ] = field(default_factory=List)

    def run(self) -> int:
        return self.command.run()
