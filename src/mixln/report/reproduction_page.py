"""What became of a recipe, drawn: the paper's figures as they came out here, and the page that has everything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from statistics import mean

from mixln.recipes.curves import CURVES, Curve
from mixln.recipes.results import AsPublished, Line, Points, Reproduction
from mixln.report import axes, grid
from mixln.report.embedded import figure
from mixln.report.grid import Grid
from mixln.report.heatmap import Triangle, triangles
from mixln.report.reproduction import (
    changes_beside,
    differences_beside,
    numbers_beside,
    tables,
    tally,
)
from mixln.report.series import Chart, Panel, Trace, mean_curve
from mixln.report.skeleton import closed_pairs, page, scroll, section, verdict


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
    return tuple(replace(chart, title=f"{chart.title} (models made smaller)") for chart in drawn)


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
        name=curve.slug,
        title=f"{curve.name.capitalize()} by {curve.along}",
        caption=f"{curve.caption} Strong lines: mean over seeds; thin lines: single seeds."
        + axes.notes([(panel.title, panel.y) for panel in panels]),
        description=f"Line chart of the {curve.name} against the {curve.along}. The numbers are in reproduction.json.",
        keys=tuple(names),
        panels=panels,
        across=min(2, len(panels)),
    )


def _panel(curve: Curve, lines: Sequence[Line], names: Sequence[str]) -> Panel:
    run, label = lines[0].run, lines[0].label
    values = [value for each in lines for _, value in each.points]
    places = [place for each in lines for place, _ in each.points]
    x = axes.layers(round(max(places))) if curve.along == "layer" else axes.linear(curve.along, places)
    y = axes.logarithmic(label, values) if curve.logarithmic else axes.spread(label, values)
    seeds, means = [], []
    for placement in dict.fromkeys(each.placement for each in lines):
        mine = [each for each in lines if each.placement == placement]
        name = _name(run, placement)
        key = names.index(name)
        if len(mine) > 1:
            seeds += [
                Trace(key=key, role="seed", label=f"{name}, seed {each.seed}", points=each.points) for each in mine
            ]
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
        "perplexity", [math.exp(loss) for each in found.swept for loss in each.losses if loss is not None]
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
            traces.append(Trace(key=key, role="dot", label=f"{rate:g}, a seed", points=tuple(dots)))
            traces.append(Trace(key=key, role="mean", label=f"{rate:g}", points=tuple(points)))
        x = axes.Axis(label="placement; of Mix-LN its share α", low=-0.4, high=len(placements) - 0.6, ticks=ticks)
        panels.append(Panel(title=run, x=x, y=y, traces=tuple(traces)))
    return Chart(
        name="sweep",
        title="Perplexity by placement and learning rate",
        caption="Held-out perplexity on a logarithmic axis; lower is better. Dots: seeds. Lines: mean of the loss over the seeds that "
        "trained, or over all where none did.",
        description=tally(found),
        keys=tuple(f"learning rate {rate:g}" for rate in rates),
        panels=tuple(panels),
        across=len(panels),
    )


_OWN = " What it trained has reports of its own, each <code>report.html</code> in the folder of the model's name."


def render(found: Reproduction, beside: AsPublished | None = None) -> str:
    """The page as HTML.

    :param beside: the same as the authors' code does.
    """
    drawn = charts(found)
    return page(
        title=f"mixln reproduce {found.recipe}",
        heading=found.title,
        body=(
            verdict({"": (tally(found), *_scale(found))}),
            section("Results", *map(_table, tables(found))),
            *([section("Figures", *map(figure, drawn))] if drawn else []),
            *([section("As published", *map(_table, _beside(beside)))] if beside else []),
            section(
                "Details",
                closed_pairs("What the paper leaves open, and how it is read", [(found.source, found.reading)]),
                closed_pairs(
                    "Trained", [(line.partition(": ")[0], line.partition(": ")[2]) for line in found.settings]
                ),
                closed_pairs("Versions and machine", found.facts.items()),
            ),
        ),
        footer=f"Written by <code>{escape(found.command)}</code>. The same numbers are in <code>reproduction.json</code>, on the "
        f"<code>scale</code> that it names, the tables in <code>reproduction.md</code>.{_OWN if found.settings else ''}",
        charts=drawn,
    )


def _scale(found: Reproduction) -> Iterator[str]:
    if found.scale == "cpu":
        yield f"Made smaller: {found.scaled}."
    if found.smaller:
        yield (
            "Models that small, trained that briefly, say nothing certain about those of the paper: what is compared is who is ahead of "
            "whom."
        )


def _beside(found: AsPublished) -> tuple[Grid, ...]:
    return (numbers_beside(found), differences_beside(found), changes_beside(found))


def _table(made: Grid) -> str:
    return f"<h3>{escape(made.title)}</h3>\n{scroll(made.title, grid.html(made))}"
