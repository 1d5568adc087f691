"""Drawings of placements in plain text."""

from __future__ import annotations

from itertools import groupby

from mixln.placement.records import Placement


def draw(placement: Placement) -> str:
    """The layers one by one, from the embedding to the head, each with its two equations.

    A bar at the left joins neighbours with the same record, so that the change of placement within a model shows.
    """
    width = len(str(len(placement.layers)))
    lines = ["      embedding" + (";  x ← N(x)" if placement.embedding_norm is not None else "")]
    index = 0
    for _, group in groupby(placement.layers):
        run = list(group)
        for position, layer in enumerate(run):
            index += 1
            bar = "─" if len(run) == 1 else "┌" if position == 0 else "└" if position == len(run) - 1 else "│"
            lines.append(f"  {bar} layer {index:>{width}}   {layer.formula}")
    lines.append("      final norm, head")
    return "\n".join(lines)
