"""The figures of a stress test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from mixln.report.figures import axes
from mixln.report.figures.series import Chart, Panel, Reference, Role, Trace
from mixln.report.names import short
from mixln.report.wording import search_report as words
from mixln.report.wording.charts import LEARNING_RATE, interval, seed
from mixln.report.wording.tables import LAYERS
from mixln.search.results import LearningRateLimit, Ramp, Stress
from mixln.search.stability_limit import WINDOW, smoothed


def charts(result: Stress) -> tuple[Chart, ...]:
    """The loss against the learning rate, a panel for each depth and init; and the limits."""
    placements = list(dict.fromkeys(limit.placement for limit in result.limits))
    titles = {limit.placement: limit.title for limit in result.limits}
    keys = tuple(titles[name] if [*titles.values()].count(titles[name]) == 1 else name for name in placements)
    limits = _limits(result, placements, keys)
    return (_curves(result, placements, keys), limits)


def _curves(result: Stress, placements: list[str], keys: tuple[str, ...]) -> Chart:
    depths = sorted({ramp.layers for ramp in result.ramps})
    x = axes.logarithmic(LEARNING_RATE, result.rates, pad=0.02)
    sound = [loss for ramp in result.ramps for _, loss in ramp.curve if loss is not None and loss < 2 * result.floor]
    y = axes.linear(words.TRAINING_LOSS, [result.floor, *sound])
    panels = tuple(
        Panel(
            title=words.depth(depth) if len(depths) > 1 else "",
            x=x,
            y=y,
            traces=tuple(
                trace
                for ramp in result.ramps
                if ramp.layers == depth
                for trace in _ramp(ramp, placements.index(ramp.placement), keys, y)
            ),
            reference=Reference(value=result.floor, label=words.UNIGRAM, along="y"),
        )
        for depth in depths
    )
    return Chart(
        name="ramps",
        text=words.ramps(result, WINDOW),
        keys=keys,
        panels=panels,
        across=min(2, len(panels)),
    )


def _ramp(ramp: Ramp, key: int, keys: tuple[str, ...], y: axes.Axis) -> list[Trace]:
    name = seed(words.line(keys[key], ramp.init), ramp.seed)
    rates = [rate for rate, _ in ramp.curve]
    losses = [math.inf if loss is None else loss for _, loss in ramp.curve]
    middle = len(rates) - WINDOW // 2  # the median over the last WINDOW records belongs to the middle one
    smooth = list(zip(rates[: max(0, middle)], smoothed(losses)[WINDOW // 2 :], strict=True))
    lines: dict[Role, Iterable[tuple[float, float]]] = {"training": zip(rates, losses, strict=True), "seed": smooth}
    traces = [
        Trace(key=key, role=role, label=name, points=tuple((rate, _shown(loss, y)) for rate, loss in line))
        for role, line in lines.items()
    ]
    if ramp.breaking and (at := ramp.rate) and ramp.breaking.failure != "none":
        loss = next((loss for rate, loss in reversed(smooth) if rate <= at), None)
        traces.append(Trace(key=key, role="ended", label=words.broke(name, ramp), points=((at, y.inside(loss)),)))
    return traces


def _shown(loss: float, y: axes.Axis) -> float:
    """The loss as drawn; NaN, a gap, above the axis."""
    return y.inside(loss) if loss < y.high else math.nan


def _limits(result: Stress, placements: list[str], keys: tuple[str, ...]) -> Chart:
    """The stability limits: a row per placement, or against the depth if there are several."""
    depths = sorted({limit.layers for limit in result.limits})
    ends = [end for limit in result.limits for end in _interval(limit, result.rates)]
    seeds = [ramp.rate for ramp in result.ramps if ramp.rate]
    scale = axes.logarithmic(words.HIGHEST_RATE, [*seeds, *ends])
    deep = len(depths) > 1
    panel = (_by_depth if deep else _by_row)(result, placements, keys, scale)
    return Chart(
        name="limits",
        text=words.limits(result, by_depth=deep),
        keys=keys if deep else (),
        panels=(panel,) if seeds else (),
        across=1,
    )


def _by_depth(result: Stress, placements: list[str], keys: tuple[str, ...], scale: axes.Axis) -> Panel:
    """A line per placement and init."""
    depths = sorted({limit.layers for limit in result.limits})
    x = axes.logarithmic(LAYERS, depths)
    x = axes.Axis(label=LAYERS, low=x.low, high=x.high, log=True, ticks=tuple((float(d), str(d)) for d in depths))
    traces: list[Trace] = []
    for key, placement in enumerate(placements):
        for init in dict.fromkeys(limit.init for limit in result.limits):
            mine = [
                limit for limit in result.limits if (limit.placement, limit.init) == (placement, init) and limit.rate
            ]
            name, places = words.line(keys[key], init), [float(limit.layers) for limit in mine]
            points = tuple((place, limit.rate or 0.0) for place, limit in zip(places, mine, strict=True))
            traces.append(Trace(key=key, role="mean", label=name, points=points))
            for place, limit in zip(places, mine, strict=True):
                traces += _span(limit, key, result.rates, lambda end, place=place: (place, end))
    return Panel(title="", x=x, y=scale, traces=tuple(trace for trace in traces if trace.points))


def _by_row(result: Stress, placements: list[str], keys: tuple[str, ...], scale: axes.Axis) -> Panel:
    """A row per placement and init, for a single depth."""
    traces: list[Trace] = []
    for index, limit in enumerate(result.limits):
        key, row = placements.index(limit.placement), -float(index)
        single = [
            (ramp.seed, ramp.rate)
            for ramp in result.ramps
            if (ramp.placement, ramp.init) == (limit.placement, limit.init) and ramp.rate
        ]
        if len(limit.failures) > 1:
            for number, rate in single:
                traces.append(Trace(key=key, role="dot", label=words.seed(number), points=((rate, row - 0.25),)))
        if limit.rate is not None:
            traces += _span(limit, key, result.rates, lambda end, row=row: (end, row))
            traces.append(Trace(key=key, role="center", label=words.MEAN, points=((limit.rate, row),)))
            side = "note" if scale.share(limit.rate) > 0.6 else "value"
            text = words.highest(limit.rate, censored=bool(limit.censored), unknown=False)
            traces.append(Trace(key=key, role=side, label=text, points=((limit.rate, row + 0.2),)))
    several = len({limit.init for limit in result.limits}) > 1
    names = tuple(
        (-float(index), short(words.line(limit.title, limit.init) if several else limit.title))
        for index, limit in enumerate(result.limits)
    )
    y = axes.Axis(label="", low=0.3 - len(result.limits), high=0.5, ticks=names)
    return Panel(title="", x=scale, y=y, traces=tuple(traces))


def _span(
    limit: LearningRateLimit, key: int, rates: tuple[float, float], place: Callable[[float], tuple[float, float]]
) -> list[Trace]:
    """The interval of a limit as a line, if it has one.

    :param place: learning rate → point.
    """
    points = tuple(map(place, _interval(limit, rates)))
    return [Trace(key=key, role="span", label=interval(limit.title), points=points)] if points else []


def _interval(limit: LearningRateLimit, rates: tuple[float, float]) -> tuple[float, ...]:
    """Both ends of the interval of a limit, clipped to the range of the ramp; empty without an interval.

    :param rates: first and last learning rate.
    """
    if limit.low is None or limit.high is None:
        return ()
    return tuple(min(max(end, rates[0]), rates[1]) for end in (limit.low, limit.high))
