"""The angular distance between any two depths of a model, as a triangular heat map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mixln.diagnostics.results import Angular
from mixln.report.figures import axes
from mixln.report.figures.axes import Axis
from mixln.report.figures.models import Models
from mixln.report.figures.series import Chart, Heatmap, Panel, Points, Trace
from mixln.report.wording import diagnosis_charts as texts


@dataclass(frozen=True, kw_only=True)
class Triangle:
    """The angles of one model.

    :param key: index of its style, the same in all figures of a page.
    """

    key: int
    name: str
    angles: Angular


def angular(models: Models) -> Chart:
    """A triangle for each model, all with the same colour scale."""
    return triangles([Triangle(key=model.key, name=model.name, angles=model.diagnosis.angular) for model in models])


def triangles(every: Iterable[Triangle]) -> Chart:
    """The chart of the triangles that are not empty."""
    members = [triangle for triangle in every if triangle.angles.distance]
    values = [value for triangle in members for row in triangle.angles.distance for value in row]
    scale = axes.from_zero(texts.ANGLE_SCALE, filter(math.isfinite, values))
    turned = ((triangle.name, int(layer)) for triangle in members for layer, _ in least(by_length(triangle.angles)[:1]))
    return Chart(
        name="angular",
        text=texts.angular((triangle.angles.convention for triangle in members), turned),
        keys=(),
        panels=tuple(_panel(triangle, scale) for triangle in members),
        across=min(2, len(members)),
    )


def by_length(angles: Angular) -> tuple[tuple[float, ...], ...]:
    """The transposed distances: row n − 1 holds the blocks of n layers, by their first layer."""
    depth = len(angles.distance)
    return tuple(tuple(row[n] for row in angles.distance[: depth - n]) for n in range(depth))


def least(rows: Sequence[Sequence[float]]) -> Points:
    """The cell (first layer, number of layers) with the smallest finite value of each row; of equal cells the first."""
    points = []
    for n, row in enumerate(rows, start=1):
        cells = [(value, layer) for layer, value in enumerate(row, start=1) if math.isfinite(value)]
        if cells:
            points.append((float(min(cells)[1]), float(n)))
    return tuple(points)


def _panel(triangle: Triangle, scale: Axis) -> Panel:
    rows = by_length(triangle.angles)
    cells = tuple(
        tuple(texts.block_angle(layer, n, value) for layer, value in enumerate(row, start=1))
        for n, row in enumerate(rows, start=1)
    )
    dots = least(rows)
    marked = tuple(texts.least_angle(cells[int(n) - 1][int(layer) - 1], len(rows[int(n) - 1])) for layer, n in dots)
    trace = Trace(key=triangle.key, role="least", label=triangle.name, points=dots, texts=marked)
    return Panel(
        title=triangle.name,
        x=_whole(texts.FROM_LAYER, len(rows)),
        y=_whole(texts.LAYERS_APART, len(rows)),
        traces=(trace,) if dots else (),
        heat=Heatmap(values=rows, texts=cells, scale=scale),
        key=triangle.key,
    )


def _whole(label: str, count: int) -> Axis:
    return replace(axes.layers(count), label=label, low=0.5, high=count + 0.5)
