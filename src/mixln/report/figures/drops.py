"""The performance drop without each layer, by every measure, and its first-order estimate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from mixln.diagnostics.findings import gate_agreement, gate_estimate
from mixln.diagnostics.results import Drop, Drops, zeroing_differs
from mixln.report.figures import axes
from mixln.report.figures.axes import Axis
from mixln.report.figures.models import Model, Models
from mixln.report.figures.series import Chart, Panel, Role, Trace
from mixln.report.wording import charts
from mixln.report.wording import diagnosis_charts as texts
from mixln.report.wording.charts import interval

Measured = Sequence[tuple[Model, Drops]]


def performance_drops(models: Models) -> Chart:
    """Drops by the measure of each model's own loss or task."""
    measured = [(model, model.diagnosis.drops) for model in models if model.diagnosis.drops]
    return _chart("drops", "", measured)


def sublayer_drops(models: Models) -> Chart:
    """Drops of only the attention and only the feed-forward, beside those of the whole layer."""
    measured = [(model, drops) for model in models if (drops := model.diagnosis.drops) and drops.attention]
    panels = []
    for model, drops in measured:
        sides = ((charts.ATTENTION, drops.attention), (charts.FEED_FORWARD, drops.feed_forward))
        y = _axis([replace(drops, zeroed=(*drops.attention, *drops.feed_forward))])
        whole = [drop for drop in drops.skipped if math.isfinite(drop.change)]
        circles = _changes(model, drops, whole, "open", texts.whole_layer(model.name))
        for side, chosen in sides:
            panels.append(
                _panel(model, texts.sublayer_panel(model.name, side), y, (*_bars(model, drops, chosen, y), circles))
            )
    return Chart(
        name="sublayers",
        text=texts.sublayers([(panel.title, panel.y.bend) for panel in panels]),
        keys=(),
        panels=tuple(panels),
        across=min(2, len(panels)),
    )


def task_drops(models: Models) -> Iterator[Chart]:
    """Drops by each evaluation task."""
    tasks = dict.fromkeys((drops.measure, drops.task) for model in models for drops in model.diagnosis.tasks)
    every = [(model, drops) for model in models for drops in model.diagnosis.tasks]
    groups = [[(model, drops) for model, drops in every if (drops.measure, drops.task) == task] for task in tasks]
    names = [texts.measure(group[0][1]) for group in groups]
    for slug, name, group in zip(_slugs(names), names, groups, strict=True):
        yield _chart(f"drops-{slug}", name, group)


def gates(models: Models) -> Chart:
    """The first-order estimate of the loss increase beside the exact one."""
    pairs = [(model, drops, gate_estimate(model.diagnosis)) for model in models if (drops := model.diagnosis.drops)]
    pairs = [(model, drops, values) for model, drops, values in pairs if drops.measure == "loss" and values]
    label = texts.gates_axis(drops.unit for _, drops, _ in pairs)
    y = axes.spread(label, chain.from_iterable((*_ends(drops), *values) for _, drops, values in pairs))
    panels = tuple(_gates_panel(model, drops, values, y) for model, drops, values in pairs)
    return Chart(
        name="gates",
        text=texts.gates([panel.title for panel in panels], y.bend),
        keys=(),
        panels=panels,
        across=min(2, len(panels)),
    )


def _gates_panel(model: Model, drops: Drops, values: Sequence[float], y: Axis) -> Panel:
    agreement = gate_agreement(model.diagnosis)
    estimates = Trace(
        key=model.key,
        role="open",
        label=texts.estimates(model.name),
        points=tuple((float(layer), value) for layer, value in enumerate(values, start=1)),
        texts=tuple(texts.estimate(layer, value, drops.unit) for layer, value in enumerate(values, start=1)),
    )
    bars = _bars(model, drops, drops.zeroed or drops.skipped, y)
    return _panel(model, texts.gates_panel(model.name, agreement and agreement[0]), y, (*bars, estimates))


def _chart(name: str, of: str, measured: Measured) -> Chart:
    kinds = {(drops.measure, drops.task, drops.unit, drops.better) for _, drops in measured}
    shared = [drops for _, drops in measured] if len(kinds) == 1 else None
    panels = tuple(_drops_panel(model, drops, _axis(shared or [drops])) for model, drops in measured)
    roles = {trace.role for panel in panels for trace in panel.traces}
    return Chart(
        name=name,
        text=texts.drops(
            of,
            [(model.name, drops) for model, drops in measured],
            [(panel.title, panel.y.bend) for panel in panels],
            circles="open" in roles,
            crosses="ended" in roles,
            shared=shared is not None,
        ),
        keys=(),
        panels=panels,
        across=min(2, len(panels)),
    )


def _drops_panel(model: Model, drops: Drops, y: Axis) -> Panel:
    zeroed = [drop for drop in drops.zeroed if math.isfinite(drop.change)] if zeroing_differs(drops) else []
    circles = _changes(model, drops, zeroed, "open", texts.zeroed(model.name))
    title = texts.drops_panel(model.name, drops)
    return _panel(model, title, y, (*_bars(model, drops, drops.skipped, y), circles))


def _panel(model: Model, title: str, y: Axis, traces: Iterable[Trace]) -> Panel:
    x = replace(axes.layers(model.diagnosis.layers), low=0.4, high=model.diagnosis.layers + 0.6)
    return Panel(title=title, x=x, y=y, traces=tuple(t for t in traces if t.points), key=model.key)


def _bars(model: Model, drops: Drops, chosen: Sequence[Drop], y: Axis) -> tuple[Trace, ...]:
    """Bars with intervals; a cross at the harmful end of the axis if the measure is not finite."""
    finite = [drop for drop in chosen if math.isfinite(drop.change)]
    lost = [drop for drop in chosen if not math.isfinite(drop.change)]
    known = [(float(d.first), d.low, d.high) for d in finite if d.low is not None and d.high is not None]
    spans = tuple(point for x, low, high in known for point in ((x, low), (x, high), (x, math.nan)))
    edge = y.inside(None if drops.harm > 0 else y.low)
    return (
        _changes(model, drops, finite, "bar", model.name),
        Trace(key=model.key, role="span", label=interval(model.name), points=spans),
        _changes(model, drops, lost, "ended", model.name, edge),
    )


def _changes(
    model: Model, drops: Drops, chosen: Sequence[Drop], role: Role, label: str, edge: float | None = None
) -> Trace:
    """One point per drop, at its change or at the edge of the axis."""
    return Trace(
        key=model.key,
        role=role,
        label=label,
        points=tuple((float(drop.first), drop.change if edge is None else edge) for drop in chosen),
        texts=tuple(texts.drop(drop, drops) for drop in chosen),
    )


def _axis(every: Sequence[Drops]) -> Axis:
    values = chain.from_iterable(map(_ends, every))
    return replace(axes.spread("", values), label=texts.drops_axis(every[0].unit))


def _ends(drops: Drops) -> Iterator[float]:
    """All values that the axis must contain."""
    for drop in (*drops.skipped, *drops.zeroed):
        yield from (value for value in (drop.change, drop.low, drop.high) if value is not None)


def _slugs(texts: Iterable[str]) -> Iterator[str]:
    """A unique file name for each text. None ends in a hyphen and a number, which identify panels."""
    used: set[str] = set()
    for text in texts:
        slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
        slug = f"task_{slug}" if not slug or slug.isdigit() else slug
        candidates = (slug, *(f"{slug}_{count}" for count in range(2, len(used) + 2)))
        used.add(chosen := next(name for name in candidates if name not in used))
        yield chosen
