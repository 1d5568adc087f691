"""The zoo as a Markdown document, from the entries that build the placements; torch is not needed."""

from __future__ import annotations

from mixln.nn.schemes import INIT_MODIFIERS, SCHEMES
from mixln.placement import MODIFIERS, ZOO, draw, placement
from mixln.placement.entry import Entry
from mixln.placement.records import LEGEND

LAYERS = 4
"""Number of layers in the drawings."""
INTRODUCTION = """# Placements

Written by `mixln placements document`, from the entries that build the placements (`src/mixln/placement/zoo.py`). The evidence for and
against a placement is quoted from the given sources; none of it was measured by us. Our measurements are in [findings.md](findings.md),
and the placements that each family supports in [hosts.md](hosts.md).

Mixtures: `post*3,pre*9` is 3 layers of `post`, then 9 of `pre`; `hybrid**2,pre` is 2 layers of `hybrid*`, then `pre` for the rest. Every
model keeps its final norm before the head. `stock` is drawn for Llama.
"""


def document() -> str:
    """All placements, modifiers and initialisations, in Markdown."""
    modifiers = [
        f"- `{entry.example}+…`: {entry.title}{f' ({entry.source})' if entry.source else ''}.{f' {entry.notes}' if entry.notes else ''}"
        for entry in MODIFIERS.values()
    ]
    inits = [f"- `{entry.name}`: {entry.rule} ({entry.source})." for entry in SCHEMES.values()]
    inits += [
        f"- `{entry.name}{entry.arguments}+…`: {entry.rule} ({entry.source})." for entry in INIT_MODIFIERS.values()
    ]
    parts = [
        INTRODUCTION,
        LEGEND + "\n",
        *map(_section, ZOO.values()),
        "## Modifiers\n\nA modifier is written in front of any placement, for example `qknorm+pre`, `gpas+mix(0.25)` or "
        "`norm(kv,full)+post`. Modifiers are applied from right to left; if two set the same norm or gain, the left one takes effect. "
        "In a mixture, a modifier applies to its own part only.\n",
        *modifiers,
        "\n## Initialisations\n\nd is the hidden size, L the number of layers. `--init` holds one fixed for all placements.\n",
        *inits,
    ]
    return "\n".join(parts) + "\n"


def _section(entry: Entry) -> str:
    lines = [
        f"## {entry.title}: `{entry.example}`",
        "",
        f"{entry.formula} ({entry.source}). Recommended init: `{entry.init}`.{f' {entry.notes}' if entry.notes else ''}",
        "",
        "```text",
        draw(placement(entry.name, LAYERS)),
        "```",
        "",
        *(f"- {name}: {text}" for name, text in entry.facts.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"
