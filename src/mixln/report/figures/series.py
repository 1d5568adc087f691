"""Prepared figures, drawn with matplotlib for files and with plotly for the page.

A :class:`Chart` has panels, a panel has traces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mixln.compare.results import PlacementSummary, Summary
from mixln.report.figures.axes import Axis
from mixln.report.wording.charts import ChartText
from mixln.runs.profile import LayerProfile
from mixln.runs.trials import TrialResult

Role = Literal["mean", "seed", "training", "dot", "center", "value", "note", "ended", "bar", "span", "open", "least"]
Points = tuple[tuple[float, float], ...]
"""(x, y), ascending in x; y is NaN where a line has a gap."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One line or one set of points of one placement or model.

    :param key: index of the placement or model in the chart's keys, which fixes colour, marker and dash.
    :param role: lines: `mean` strong with markers, `seed` thin, `training` faint; points: `dot` small, `center` large,
        `value` is the label to the right of the point, `note` to its left, `ended` a cross, `open` a white circle,
        `least` a small white circle; `bar`: bars from zero; `span`: thin lines between pairs of points.
    :param label: name in the hover text.
    :param texts: hover text of each point; if empty, its coordinates.
    """

    key: int
    role: Role
    label: str
    points: Points
    texts: tuple[str, ...] = ()

    @property
    def x(self) -> list[float]:
        return [x for x, _ in self.points]

    @property
    def y(self) -> list[float]:
        return [y for _, y in self.points]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A dashed line across a panel. If `value` is beyond the axis, only its label at that edge.

    :param along: axis of `value`; for `y`, the line is horizontal.
    """

    value: float
    label: str
    along: Literal["x", "y"]

    def on(self, axis: Axis) -> tuple[float, str]:
        """The position on its axis, and the label. Beyond the axis, the position is the edge and the label has an arrow."""
        if axis.holds(self.value):
            return self.value, self.label
        above = self.value > axis.high
        arrow = {"x": "←→", "y": "↓↑"}[self.along][above]
        return (axis.high if above else axis.low), f"{self.label} {arrow}"


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Coloured cells of size 1 around integers.

    :param values: `values[y - 1][x - 1]` is the value of the cell at (x, y); rows may be of different length.
    :param texts: hover text of each cell, in the same shape.
    :param scale: its ends are the values of the first and the last colour of `styles.HEAT`.
    """

    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    scale: Axis

    @property
    def columns(self) -> int:
        """Length of the longest row."""
        return max(map(len, self.values))

    @property
    def aspect(self) -> float:
        """Height over width of the map; its cells are square."""
        return len(self.values) / self.columns

    @property
    def gap(self) -> int:
        """Width of the white lines between cells, in pixels: 0 if cells are so small that lines would hide them."""
        return int(self.columns <= 40)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes.

    :param heat: cells behind the traces; both axes then have the same scale, so that cells are square.
    :param key: key of the model, if the panel shows only one, whose name is the title.
    """

    title: str
    x: Axis
    y: Axis
    traces: tuple[Trace, ...]
    reference: Reference | None = None
    heat: Heatmap | None = None
    key: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure.

    :param name: file name without extension.
    :param keys: labels of the placements or models, in the order of the summary; empty if panels are named after them.
    :param panels: empty if nothing was recorded.
    :param across: maximum number of panels in a row.
    """

    name: str
    text: ChartText
    keys: tuple[str, ...]
    panels: tuple[Panel, ...]
    across: int

    @property
    def title(self) -> str:
        return self.text.title

    @property
    def caption(self) -> str:
        return self.text.caption

    @property
    def description(self) -> str:
        return self.text.description

    @property
    def heat_scale(self) -> Axis | None:
        """The common colour scale of all panels; `None` without heat maps."""
        return next((panel.heat.scale for panel in self.panels if panel.heat), None)


def trials_at(summary: Summary, row: PlacementSummary, learning_rate: float) -> tuple[TrialResult, ...]:
    """The trials of one placement at one learning rate, one per seed."""
    wanted = (row.placement, row.init, learning_rate)
    return tuple(
        result
        for result in summary.trials
        if (result.trial.placement, result.trial.init, result.trial.learning_rate) == wanted
    )


def finite(curve: Iterable[tuple[int, float | None]]) -> Points:
    """The points of a curve with a finite value; stored curves have `None` for values that were not finite."""
    return tuple((float(step), y) for step, y in curve if y is not None and math.isfinite(y))


def mean_curve(curves: Sequence[Points]) -> Points:
    """The mean over curves, at the steps that all of them have; it ends with the shortest."""
    values = [dict(curve) for curve in curves if curve]
    if not values:
        return ()
    steps = [step for step in values[0] if all(step in other for other in values)]
    return tuple((step, sum(other[step] for other in values) / len(values)) for step in steps)


def mean_profile(profiles: Sequence[Sequence[float | None]]) -> tuple[float, ...]:
    """The mean over seeds of each layer; NaN if a seed has no positive finite value, as the axis is logarithmic."""
    if not profiles:
        return ()
    return tuple(_mean(values) for values in zip(*profiles, strict=False))


def first_profiles(profiles: Iterable[tuple[LayerProfile, ...]]) -> tuple[LayerProfile, ...]:
    """The first record of each training with records."""
    return tuple(profile[0] for profile in profiles if profile)


def last_profiles(profiles: Iterable[tuple[LayerProfile, ...]]) -> tuple[LayerProfile, ...]:
    """The last record of each training with at least two; only those at the latest step."""
    last = [profile[-1] for profile in profiles if len(profile) > 1]
    furthest = max((profile.step for profile in last), default=0)
    return tuple(profile for profile in last if profile.step == furthest)


def _mean(values: Sequence[float | None]) -> float:
    usable = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    return sum(usable) / len(usable) if len(usable) == len(values) else math.nan
