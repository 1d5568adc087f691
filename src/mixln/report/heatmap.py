"""The angular distance between any two depths of a model, as a triangle of coloured cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mixln.diagnostics.results import Angular
from mixln.diagnostics.verdict import layers
from mixln.report import axes, formats
from mixln.report.axes import Axis
from mixln.report.models import Models
from mixln.report.series import Chart, Heat, Panel, Points, Trace

_SCALE = "angle between the streams, fraction of π (0 same direction, 0.5 orthogonal)"
_TOKENS = {"all": "mean over all tokens", "last": "at the last token of each sequence"}


@dataclass(frozen=True, kw_only=True)
class Triangle:
    """The angles of one model.

    :param key: fixes its colour in the figures that it shares a page with.
    """

    key: int
    name: str
    angles: Angular


def angular(models: Models) -> Chart:
    """A triangle for each model, all with the same colours."""
    return triangles([Triangle(key=model.key, name=model.name, angles=model.diagnosis.angular) for model in models])


def triangles(every: Iterable[Triangle]) -> Chart:
    """The chart of those that have layers."""
    members = [each for each in every if each.angles.distance]
    values = [value for each in members for row in each.angles.distance for value in row]
    scale = axes.from_zero(_SCALE, filter(math.isfinite, values))
    conventions = [_TOKENS[convention] for convention in dict.fromkeys(each.angles.convention for each in members)]
    return Chart(
        name="angular",
        title="How far the residual stream turns",
        caption=(
            "Each cell is a block of consecutive layers: it begins with the layer below the cell and has as many layers as "
            "stand at the left. Its colour is the angle between the stream that enters the block and the one that leaves it "
            f"({' or '.join(conventions)}): yellow, the block hardly turns the stream; purple, it turns it far. A white dot "
            "marks the block of each length that turns it least, which is the one that Gromov et al. (arXiv:2403.17887) "
            "would remove. In the lowest row each layer stands alone."
        ),
        description="Triangular heat maps of the angular distance between the inputs of any two layers, by the first layer "
        f"and the number of layers between them. {' '.join(map(_least_words, members))}",
        keys=(),
        panels=tuple(_panel(each, scale) for each in members),
        across=min(2, len(members)),
    )


def by_length(angles: Angular) -> tuple[tuple[float, ...], ...]:
    """Row n − 1 holds the blocks of n layers, by their first layer: the distances with their two places exchanged."""
    depth = len(angles.distance)
    return tuple(tuple(row[n] for row in angles.distance[: depth - n]) for n in range(depth))


def least(rows: Sequence[Sequence[float]]) -> Points:
    """The smallest finite cell (first layer, layers) of each row that has one; the first of several."""

    def found() -> Iterator[tuple[float, float]]:
        for n, row in enumerate(rows, start=1):
            cells = [(value, layer) for layer, value in enumerate(row, start=1) if math.isfinite(value)]
            if cells:
                yield float(min(cells)[1]), float(n)

    return tuple(found())


def _panel(triangle: Triangle, scale: Axis) -> Panel:
    rows = by_length(triangle.angles)
    texts = tuple(
        tuple(_words(layer, n, value) for layer, value in enumerate(row, start=1))
        for n, row in enumerate(rows, start=1)
    )
    dots = least(rows)
    words = tuple(f"{texts[int(n) - 1][int(layer) - 1]}, the least of all {len(rows[int(n) - 1])}" for layer, n in dots)
    trace = Trace(key=triangle.key, role="least", label=triangle.name, points=dots, texts=words)
    return Panel(
        title=triangle.name,
        x=_whole("from layer", len(rows)),
        y=_whole("layers apart", len(rows)),
        traces=(trace,) if dots else (),
        heat=Heat(values=rows, texts=texts, scale=scale),
        key=triangle.key,
    )


def _whole(label: str, count: int) -> Axis:
    return replace(axes.layers(count), label=label, low=0.5, high=count + 0.5)


def _words(layer: int, n: int, value: float) -> str:
    block = layers(layer, layer + n - 1)
    return f"{block}: the stream turns by {formats.angle(value)} π"


def _least_words(triangle: Triangle) -> str:
    rows = by_length(triangle.angles)[:1]
    return "".join(f"{triangle.name} turns it least in layer {layer:.0f}." for layer, _ in least(rows))
