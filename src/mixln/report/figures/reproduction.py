"""The figures of a recipe: the paper's curves as they came out here, and perplexity by learning rate."""

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


def charts(found: Reproduction) -> tuple[Chart, ...]:
    """The paper's figures, and of several learning rates what each gave; of most tables none."""
    names = list(dict.fromkeys(_name(each.run, each.placement) for each in (*found.lines, *found.turned)))
    turned = [
        Triangle(key=names.index(name), name=name, angles=each.angles)
        for each in found.turned
        for name in [_name(each.run, each.placement)]
    ]
    curves = dict.fromkeys(each.curve for each in found.lines)
    drawn = (
        *([triangles(turned)] if turned else []),
        *(_lines(CURVES[curve], [each for each in found.lines if each.curve == curve], names) for curve in curves),
        *([_sweep(found)] if found.swept else []),
    )
    if not found.smaller:
        return drawn
    return tuple(_made_smaller(chart) for chart in drawn)


def _made_smaller(chart: Chart) -> Chart:
    return replace(chart, text=replace(chart.text, title=words.made_smaller(chart.title)))


def _name(run: str, placement: str) -> str:
    """Of a model that was trained its placement, of one that exists its name."""
    return placement or run


def _lines(curve: Curve, lines: Sequence[Line], names: Sequence[str]) -> Chart:
    """One of the paper's curves: a panel for each model, mean and seeds of each placement."""
    panels = tuple(
        _panel(curve, [each for each in lines if each.run == run], names)
        for run in dict.fromkeys(each.run for each in lines)
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
    values = [value for each in lines for _, value in each.points]
    places = [place for each in lines for place, _ in each.points]
    x = axes.layers(round(max(places))) if curve.along == "layer" else axes.linear(words.curve_axis(curve), places)
    y = axes.logarithmic(label, values) if curve.logarithmic else axes.spread(label, values)
    seeds, means = [], []
    for placement in dict.fromkeys(each.placement for each in lines):
        mine = [each for each in lines if each.placement == placement]
        name = _name(run, placement)
        key = names.index(name)
        if len(mine) > 1:
            seeds += [Trace(key=key, role="seed", label=seed(name, each.seed), points=each.points) for each in mine]
        means.append(Trace(key=key, role="mean", label=name, points=_mean(curve, mine)))
    return Panel(title=run, x=x, y=y, traces=(*seeds, *means))


def _mean(curve: Curve, lines: Sequence[Line]) -> Points:
    """Over seeds, where all have a value; of the logarithms where the axis is logarithmic."""
    there, back = (math.log, math.exp) if curve.logarithmic else (float, float)
    curves = [tuple((place, there(value)) for place, value in each.points) for each in lines]
    return tuple((place, back(value)) for place, value in mean_curve(curves))


def _sweep(found: Reproduction) -> Chart:
    """Perplexity by placement, a line for each learning rate and a panel for each run."""
    rates = sorted({each.learning_rate for each in found.swept})
    runs = list(dict.fromkeys(each.run for each in found.swept))
    y = axes.logarithmic(
        PERPLEXITY.name, [math.exp(loss) for each in found.swept for loss in each.losses if loss is not None]
    )
    panels = []
    for run in runs:
        mine = [each for each in found.swept if each.run == run]
        placements = list(dict.fromkeys(each.placement for each in mine))
        ticks = tuple((float(index), re.sub(r"^mix\((.*)\)$", r"\1", name)) for index, name in enumerate(placements))
        traces = []
        for key, rate in enumerate(rates):
            points, dots = [], []
            for each in mine:
                if each.learning_rate == rate and each.counted:
                    at = float(placements.index(each.placement))
                    points.append((at, math.exp(mean(each.counted))))
                    dots += [(at, math.exp(loss)) for loss in each.losses if loss is not None]
            traces.append(Trace(key=key, role="dot", label=words.a_seed(f"{rate:g}"), points=tuple(dots)))
            traces.append(Trace(key=key, role="mean", label=f"{rate:g}", points=tuple(points)))
        x = axes.Axis(label=words.SWEEP_AXIS, low=-0.4, high=len(placements) - 0.6, ticks=ticks)
        panels.append(Panel(title=run, x=x, y=y, traces=tuple(traces)))
    return Chart(
        name="sweep",
        text=words.sweep(found),
        keys=tuple(map(at_rate, rates)),
        panels=tuple(panels),
        across=len(panels),
    )
