"""The zoo as a document, from the same entries that build the placements; nothing here needs torch."""

from __future__ import annotations

from mixln.nn.schemes import INIT_MODIFIERS, SCHEMES
from mixln.placement import MODIFIERS, ZOO, draw, placement
from mixln.placement.records import LEGEND
from mixln.placement.zoo import Entry

LAYERS = 4
"""Of the drawings."""
INTRODUCTION = """# Placements

Written by `mixln placements document`, from the entries that build the placements (`src/mixln/placement/zoo.py`). What is quoted for
and against is what others published, with the source; none of it was measured by us. What we measured stands in
[findings.md](findings.md), and which families carry which placement in [hosts.md](hosts.md).

Mixtures: `post*3,pre*9` is 3 layers, then 9; `hybrid**2,pre` is 2 layers of `hybrid*`, then `pre` for the rest. Every model keeps its
final norm before the head. `stock` is drawn as it is for Llama.
"""


def document() -> str:
    """All placements, what can be put in front of them, and the initialisations, in Markdown."""
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
        "## In front of any of them\n\nFor example `qknorm+pre`, `gpas+mix(0.25)`, `norm(kv,full)+post`. "
        "They are applied from right to left; where two of them set the same norm or gain, the left one has the last word. "
        "In a mixture a modifier belongs to its own part.\n",
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
