"""The figures of a recipe: the paper's curves as measured here, and perplexity by learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from mixln.compare.metrics import PERPLEXITY
from mixln.recipes.curves import CURVES, Curve
from mixln.recipes.results import Line, Points, Reproduction
from mixln.report.figures import axes
from mixln.report.figures.angular import Triangle, triangles
from mixln.report.figures.series import Chart, Panel, Trace, mean_curve
from mixln.report.wording import reproduction as words
from mixln.report.wording.charts import at_rate, seed


def charts(outcome: Reproduction) -> tuple[Chart, ...]:
    """The paper's figures, and the perplexity by learning rate if there are several; empty for most tables."""
    names = list(dict.fromkeys(_name(entry.run, entry.placement) for entry in (*outcome.lines, *outcome.turned)))
    turned = [
        Triangle(key=names.index(name), name=name, angles=entry.angles)
        for entry in outcome.turned
        for name in [_name(entry.run, entry.placement)]
    ]
    curves = dict.fromkeys(entry.curve for entry in outcome.lines)
    drawn = (
        *([triangles(turned)] if turned else []),
        *(_lines(CURVES[curve], [entry for entry in outcome.lines if entry.curve == curve], names) for curve in curves),
        *([_sweep(outcome)] if outcome.swept else []),
    )
    if not outcome.smaller:
        return drawn
    return tuple(_made_smaller(chart) for chart in drawn)


def _made_smaller(chart: Chart) -> Chart:
    return replace(chart, text=replace(chart.text, title=words.made_smaller(chart.title)))


def _name(run: str, placement: str) -> str:
    """The placement of a trained model, or the name of an existing one."""
    return placement or run


def _lines(curve: Curve, lines: Sequence[Line], names: Sequence[str]) -> Chart:
    """One of the paper's curves: a panel for each model, mean and seeds of each placement."""
    panels = tuple(
        _panel(curve, [line for line in lines if line.run == run], names)
        for run in dict.fromkeys(line.run for line in lines)
    )
    return Chart(
        name=curve.name,
        text=words.curve(curve, [(panel.title, panel.y.bend) for panel in panels]),
        keys=tuple(names),
        panels=panels,
        across=min(2, len(panels)),
    )


def _panel(curve: Curve, lines: Sequence[Line], names: Sequence[str]) -> Panel:
    run, label = lines[0].run, words.curve_label(lines[0])
    values = [value for line in lines for _, value in line.points]
    places = [place for line in lines for place, _ in line.points]
    x = axes.layers(round(max(places))) if curve.along == "layer" else axes.linear(words.curve_axis(curve), places)
    y = axes.logarithmic(label, values) if curve.logarithmic else axes.spread(label, values)
    seeds, means = [], []
    for placement in dict.fromkeys(line.placement for line in lines):
        mine = [line for line in lines if line.placement == placement]
        name = _name(run, placement)
        key = names.index(name)
        if len(mine) > 1:
            seeds += [Trace(key=key, role="seed", label=seed(name, line.seed), points=line.points) for line in mine]
        means.append(Trace(key=key, role="mean", label=name, points=_mean(curve, mine)))
    return Panel(title=run, x=x, y=y, traces=(*seeds, *means))


def _mean(curve: Curve, lines: Sequence[Line]) -> Points:
    """The mean over seeds, at places where all have a value; of logarithms if the axis is logarithmic."""
    transform, inverse = (math.log, math.exp) if curve.logarithmic else (float, float)
    curves = [tuple((place, transform(value)) for place, value in line.points) for line in lines]
    return tuple((place, inverse(value)) for place, value in mean_curve(curves))


def _sweep(outcome: Reproduction) -> Chart:
    """Perplexity by placement, a line for each learning rate and a panel for each run."""
    rates = sorted({point.learning_rate for point in outcome.swept})
    runs = list(dict.fromkeys(point.run for point in outcome.swept))
    y = axes.logarithmic(
        PERPLEXITY.name, [math.exp(loss) for point in outcome.swept for loss in point.losses if loss is not None]
    )
    panels = []
    for run in runs:
        mine = [point for point in outcome.swept if point.run == run]
        placements = list(dict.fromkeys(point.placement for point in mine))
        ticks = tuple((float(index), re.sub(r"^mix\((.*)\)$", r"\1", name)) for index, name in enumerate(placements))
        traces = []
        for key, rate in enumerate(rates):
            points, dots = [], []
            for point in mine:
                if point.learning_rate == rate and point.counted:
                    at = float(placements.index(point.placement))
                    points.append((at, math.exp(mean(point.counted))))
                    dots += [(at, math.exp(loss)) for loss in point.losses if loss is not None]
            traces.append(Trace(key=key, role="dot", label=words.a_seed(f"{rate:g}"), points=tuple(dots)))
            traces.append(Trace(key=key, role="mean", label=f"{rate:g}", points=tuple(points)))
        x = axes.Axis(label=words.SWEEP_AXIS, low=-0.4, high=len(placements) - 0.6, ticks=ticks)
        panels.append(Panel(title=run, x=x, y=y, traces=tuple(traces)))
    return Chart(
        name="sweep",
        text=words.sweep(outcome),
        keys=tuple(map(at_rate, rates)),
        panels=tuple(panels),
        across=len(panels),
    )
