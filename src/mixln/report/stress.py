"""What a stress test found: a table, a figure and a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from html import escape

from mixln.report import axes, formats, grid, series
from mixln.report.embedded import figure
from mixln.report.grid import Grid
from mixln.report.series import Chart, Panel, Reference, Role, Trace
from mixln.report.skeleton import closed_pairs, flat, page, scroll, section, verdict
from mixln.report.tables import Pieces
from mixln.search.breaking import WINDOW, smoothed
from mixln.search.results import Limit, Ramp, Stress
from mixln.search.words import ENDS, ends_text, ratio_text


def table(found: Stress) -> Grid:
    """One row a placement, depth and init."""
    several = len({limit.layers for limit in found.limits}) > 1
    baseline = next(limit.title for limit in found.limits if limit.placement == found.baseline)
    low, high = found.rates
    head = ("placement", *(("layers",) if several else ()), "init", "above it", "highest rate", f"times {baseline}'s")
    return Grid(
        title="The highest learning rate that trains",
        head=head,
        rows=tuple(_row(limit, several) for limit in found.limits),
        words=len(head) - 2,
        caption=f"Learning rate up to which the training loss kept what it had learnt, while the rate rose from {low:g} to {high:g} in "
        f"{found.steps:,} steps: geometric mean over seeds, with its 95% confidence interval; the ratio is paired by seed. "
        "≥: the ramp ended first.",
    )


def _row(limit: Limit, several: bool) -> tuple[Pieces, ...]:
    ends = Counter(ENDS[failure] for failure in limit.failures)
    above = tuple(f"{count} {end}" for end, count in ends.items())
    if limit.spiked:
        above += (f"{limit.spiked} had spiked and recovered",)
    if limit.failed:
        above += (f"{limit.failed} failed",)
    if limit.rate is None:
        highest: Pieces = ("not known" if limit.trained or limit.failed else "none",)
    else:
        sign = "≥ " if limit.censored else ""
        interval = ends_text(limit)
        highest = (f"{sign}{limit.rate:.2g}", *([interval] if interval else []))
    first, _, interval = ratio_text(limit).partition(" ")
    ratio = (first, interval) if interval else (first or formats.NOTHING,)
    above = tuple(f"{piece}," for piece in above[:-1]) + above[-1:]
    name = (formats.plain(limit.title),) + ((limit.placement,) if "(" in limit.placement else ())
    return (name, *(((str(limit.layers),),) if several else ()), (limit.init,), above, highest, ratio)


def charts(found: Stress) -> tuple[Chart, ...]:
    """The loss against the learning rate, a panel for each depth and init; and the limits."""
    placements = list(dict.fromkeys(limit.placement for limit in found.limits))
    titles = {limit.placement: limit.title for limit in found.limits}
    keys = tuple(titles[name] if [*titles.values()].count(titles[name]) == 1 else name for name in placements)
    limits = _limits(found, placements, keys)
    return (_curves(found, placements, keys), limits)


def _curves(found: Stress, placements: list[str], keys: tuple[str, ...]) -> Chart:
    depths = sorted({ramp.layers for ramp in found.ramps})
    x = axes.logarithmic("learning rate", found.rates, pad=0.02)
    sound = [loss for ramp in found.ramps for _, loss in ramp.curve if loss is not None and loss < 2 * found.floor]
    y = axes.linear("training loss, nats per token", [found.floor, *sound])
    panels = tuple(
        Panel(
            title=f"{depth} layers" if len(depths) > 1 else "",
            x=x,
            y=y,
            traces=tuple(
                trace
                for ramp in found.ramps
                if ramp.layers == depth
                for trace in _ramp(ramp, placements.index(ramp.placement), keys, y)
            ),
            reference=Reference(value=found.floor, label="unigram model", along="y"),
        )
        for depth in depths
    )
    return Chart(
        name="ramps",
        title="Loss while the learning rate rises",
        caption=(
            f"Training loss against the learning rate of that moment, one line a seed: the median of {WINDOW} records, and faintly each "
            "record. ✕\u00a0marks the highest learning rate that trains. A line at the dashed one knows no more than how frequent each "
            "token is."
        ),
        description="Line chart of the training loss against the learning rate. " + " ".join(found.verdict),
        keys=keys,
        panels=panels,
        across=min(2, len(panels)),
    )


def _ramp(ramp: Ramp, key: int, keys: tuple[str, ...], y: axes.Axis) -> list[Trace]:
    name = f"{keys[key]}, {ramp.init}, seed {ramp.seed}"
    rates = [rate for rate, _ in ramp.curve]
    losses = [math.inf if loss is None else loss for _, loss in ramp.curve]
    middle = len(rates) - WINDOW // 2  # the median of the last records is that of their middle
    smooth = list(zip(rates[: max(0, middle)], smoothed(losses)[WINDOW // 2 :], strict=True))
    lines: dict[Role, Iterable[tuple[float, float]]] = {"training": zip(rates, losses, strict=True), "seed": smooth}
    traces = [
        Trace(key=key, role=role, label=name, points=tuple((rate, _shown(loss, y)) for rate, loss in line))
        for role, line in lines.items()
    ]
    if ramp.breaking and (at := ramp.rate) and ramp.breaking.failure != "none":
        loss = next((loss for rate, loss in reversed(smooth) if rate <= at), None)
        text = f"{name}: trains up to {at:.2g}, then {ENDS[ramp.breaking.failure]}"
        traces.append(Trace(key=key, role="ended", label=text, points=((at, y.inside(loss)),)))
    return traces


def _shown(loss: float, y: axes.Axis) -> float:
    """Where it is drawn; above the axis there is a gap."""
    return y.inside(loss) if loss < y.high else math.nan


def _limits(found: Stress, placements: list[str], keys: tuple[str, ...]) -> Chart:
    """The limits: rows by placement, or against the depth where there are several."""
    depths = sorted({limit.layers for limit in found.limits})
    ends = [end for limit in found.limits for end in _interval(limit, found.rates)]
    seeds = [ramp.rate for ramp in found.ramps if ramp.rate]
    scale = axes.logarithmic("highest learning rate that trains", [*seeds, *ends])
    deep = len(depths) > 1
    panel = (_by_depth if deep else _by_row)(found, placements, keys, scale)
    return Chart(
        name="limits",
        title="The highest learning rate that trains",
        caption=f"On a logarithmic axis; {'above' if deep else 'to the right'} is more robust. Large markers: geometric mean over seeds, "
        "with its 95% interval, as far as the ramp went"
        f"{'' if deep else '; small dots: single seeds, of which those that broke at the same record lie upon each other'}.",
        description=" ".join(found.verdict),
        keys=keys if deep else (),
        panels=(panel,) if seeds else (),
        across=1,
    )


def _by_depth(found: Stress, placements: list[str], keys: tuple[str, ...], scale: axes.Axis) -> Panel:
    """A line for each placement and init."""
    depths = sorted({limit.layers for limit in found.limits})
    x = axes.logarithmic("layers", depths)
    x = axes.Axis(label="layers", low=x.low, high=x.high, log=True, ticks=tuple((float(d), str(d)) for d in depths))
    traces: list[Trace] = []
    for key, placement in enumerate(placements):
        for init in dict.fromkeys(limit.init for limit in found.limits):
            mine = [
                limit for limit in found.limits if (limit.placement, limit.init) == (placement, init) and limit.rate
            ]
            name, places = f"{keys[key]}, {init}", [float(limit.layers) for limit in mine]
            points = tuple((place, limit.rate or 0.0) for place, limit in zip(places, mine, strict=True))
            traces.append(Trace(key=key, role="mean", label=name, points=points))
            for place, limit in zip(places, mine, strict=True):
                traces += _span(limit, key, found.rates, lambda end, place=place: (place, end))
    return Panel(title="", x=x, y=scale, traces=tuple(trace for trace in traces if trace.points))


def _by_row(found: Stress, placements: list[str], keys: tuple[str, ...], scale: axes.Axis) -> Panel:
    """A row for each placement and init, all of one depth."""
    traces: list[Trace] = []
    for index, limit in enumerate(found.limits):
        key, row = placements.index(limit.placement), -float(index)
        single = [
            (ramp.seed, ramp.rate)
            for ramp in found.ramps
            if (ramp.placement, ramp.init) == (limit.placement, limit.init) and ramp.rate
        ]
        if len(limit.failures) > 1:
            for seed, rate in single:
                traces.append(Trace(key=key, role="dot", label=f"seed {seed}", points=((rate, row - 0.25),)))
        if limit.rate is not None:
            traces += _span(limit, key, found.rates, lambda end, row=row: (end, row))
            traces.append(Trace(key=key, role="center", label="mean", points=((limit.rate, row),)))
            side = "note" if scale.share(limit.rate) > 0.6 else "value"
            text = f"{'≥ ' if limit.censored else ''}{limit.rate:.2g}"
            traces.append(Trace(key=key, role=side, label=text, points=((limit.rate, row + 0.2),)))
    several = len({limit.init for limit in found.limits}) > 1
    names = tuple(
        (-float(index), series.short(f"{limit.title}, {limit.init}" if several else limit.title))
        for index, limit in enumerate(found.limits)
    )
    y = axes.Axis(label="", low=0.3 - len(found.limits), high=0.5, ticks=names)
    return Panel(title="", x=scale, y=y, traces=tuple(traces))


def _span(
    limit: Limit, key: int, rates: tuple[float, float], place: Callable[[float], tuple[float, float]]
) -> list[Trace]:
    """The interval of a limit as a line, if it has one.

    :param place: learning rate → point.
    """
    points = tuple(map(place, _interval(limit, rates)))
    return [Trace(key=key, role="span", label=f"{limit.title}, 95% interval", points=points)] if points else []


def _interval(limit: Limit, rates: tuple[float, float]) -> tuple[float, ...]:
    """Both ends of the interval of a limit, as far as the ramp went; nothing if it has none.

    :param rates: first and last learning rate.
    """
    if limit.low is None or limit.high is None:
        return ()
    return tuple(min(max(end, rates[0]), rates[1]) for end in (limit.low, limit.high))


def render(found: Stress) -> str:
    """The page as HTML."""
    names = ", ".join(dict.fromkeys(formats.plain(limit.title) for limit in found.limits))
    drawn, rows = charts(found), table(found)
    return page(
        title=f"mixln stress: {names}",
        heading=f"Where training breaks: {names}",
        body=(
            verdict({"": found.verdict}),
            section("Results", scroll(rows.title, grid.html(rows))),
            section("Figures", *map(figure, drawn)),
            section(
                "Details",
                closed_pairs("Every ramp", ((_name(ramp), _said(ramp)) for ramp in found.ramps)),
                closed_pairs("Settings", flat(found.settings)),
                closed_pairs("Versions, machine and data", found.facts.items()),
            ),
        ),
        footer=f"Written by <code>mixln stress</code>. The same numbers are in <code>stress.json</code>, the table in "
        f"<code>{escape('stress.md')}</code>.",
        charts=drawn,
    )


def _name(ramp: Ramp) -> str:
    return f"{ramp.placement}, {ramp.layers} layers, {ramp.init}, seed {ramp.seed}"


def _said(ramp: Ramp) -> str:
    if ramp.breaking is None:
        return f"failed: {ramp.error}"
    each = ramp.breaking
    top = "never trained" if each.rate is None else f"trained up to {each.rate:.3g}"
    spikes = (
        f"; {each.spikes} spike{'s' * (each.spikes > 1)}, the first at {each.first_spike:.3g}"
        if each.first_spike
        else ""
    )
    return f"{top}; {ENDS[each.failure]}{spikes}; least loss {each.least:.3f} at {each.best_rate:.3g}"
