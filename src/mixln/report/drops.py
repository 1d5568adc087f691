"""What each layer's removal costs, by every measure that was taken, and how well its gradient foretells it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from mixln.diagnostics.results import Drop, Drops
from mixln.diagnostics.verdict import gate_agreement, gate_estimate, layers
from mixln.report import axes, formats
from mixln.report.axes import Axis
from mixln.report.models import Model, Models
from mixln.report.series import Chart, Panel, Role, Trace

Measured = Sequence[tuple[Model, Drops]]

_SIGN = {
    "lower": "above zero the layer is needed, below zero the model is better without it",
    "higher": "below zero the layer is needed, above zero the model is better without it",
}


def performance_drops(models: Models) -> Chart:
    """By each model's own measure."""
    measured = [(model, model.diagnosis.drops) for model in models if model.diagnosis.drops]
    return _chart("drops", "Performance drop of each layer", measured)


def task_drops(models: Models) -> Iterator[Chart]:
    """The same for each task."""
    tasks = dict.fromkeys(drops.measure for model in models for drops in model.diagnosis.tasks)
    for name, measure in zip(_slugs(tasks), tasks, strict=True):
        measured = [(model, drops) for model in models for drops in model.diagnosis.tasks if drops.measure == measure]
        yield _chart(f"drops-{name}", f"Performance drop of each layer: {formats.plain(measure)}", measured)


def gates(models: Models) -> Chart:
    """The first-order estimate of the added loss beside the loss that is really added."""
    panels = []
    pairs = [(model, drops, gate_estimate(model.diagnosis)) for model in models if (drops := model.diagnosis.drops)]
    pairs = [(model, drops, values) for model, drops, values in pairs if drops.measure == "loss" and values]
    units = ", ".join(dict.fromkeys(drops.unit for _, drops, _ in pairs))
    y = axes.spread(f"added loss, {units}", chain.from_iterable((*_ends(d), *values) for _, d, values in pairs))
    for model, drops, values in pairs:
        removed = drops.zeroed or drops.skipped
        found = gate_agreement(model.diagnosis)
        said = "" if found is None else f": rank correlation {formats.hundredths(found[0])}"
        estimates = Trace(
            key=model.key,
            role="open",
            label=f"{model.name}, estimate",
            points=tuple((float(layer), value) for layer, value in enumerate(values, start=1)),
            texts=tuple(f"layer {i}: {formats.signed(v)} {drops.unit}" for i, v in enumerate(values, start=1)),
        )
        bars = _bars(model, drops, removed, y)
        panels.append(_panel(model, f"{model.name}{said}", y, (*bars, estimates)))
    return Chart(
        name="gates",
        title="What the gradient foretells",
        caption=(
            "Bars: the loss that each layer's removal adds (its branches set to zero where that was measured, else the layer "
            "skipped). Circles: the first-order estimate of it from one backward pass, −∂loss/∂g for a gate g on the "
            "attention and on the feed-forward, summed. The rank correlation (Spearman) is 1 where both put the layers in "
            f"the same order and near 0 where the estimate says nothing.{axes.notes([('', y)])}"
        ),
        description="Bar charts of the loss added by removing each layer, with circles at the gradient's estimate. "
        f"{'; '.join(panel.title for panel in panels)}.",
        keys=(),
        panels=tuple(panels),
        across=min(2, len(panels)),
    )


def zeroing_differs(drops: Drops) -> bool:
    """Whether zeroed branches do anything else than a skipped layer, beyond rounding."""
    skipped = {drop.first: drop.change for drop in drops.skipped}
    rounding = 1e-4 * max((abs(change) for change in skipped.values() if math.isfinite(change)), default=0.0)
    pairs = [(drop.change, skipped[drop.first]) for drop in drops.zeroed if drop.first in skipped]
    return not all(math.isclose(zeroed, change, abs_tol=rounding) for zeroed, change in pairs)


def drop_words(drop: Drop, drops: Drops) -> str:
    """`layer 5: +0.0123 nats per token [+0.01, +0.015]`."""
    change = (
        f"{formats.signed(drop.change)} {formats.plain(drops.unit)}" if math.isfinite(drop.change) else "not finite"
    )
    return f"{layers(drop.first, drop.last)}: {change} {formats.interval(drop.low, drop.high)}".rstrip()


def _chart(name: str, title: str, measured: Measured) -> Chart:
    kinds = {(drops.measure, drops.unit, drops.better) for _, drops in measured}
    shared = [drops for _, drops in measured] if len(kinds) == 1 else None
    panels = tuple(_drops_panel(model, drops, _axis(shared or [drops])) for model, drops in measured)
    circles = any(trace.role == "open" for panel in panels for trace in panel.traces)
    crosses = any(trace.role == "ended" for panel in panels for trace in panel.traces)
    return Chart(
        name=name,
        title=title,
        caption=(
            "ΔP = without the layer − whole model, with each layer alone skipped whole: its input is handed on as its output. "
            f"{_sign(drops for _, drops in measured)} Thin lines: 95% interval."
            + " Circles: the layer's branches set to zero and its norms on the stream kept." * circles
            + " ✕: not finite." * crosses
            + axes.notes([(panel.title, panel.y) for panel in panels])
            + ("" if shared else " The models are measured differently: compare no heights across them.")
        ),
        description="Bar charts of the performance drop by layer. " + " ".join(_most(*pair) for pair in measured),
        keys=(),
        panels=panels,
        across=min(2, len(panels)),
    )


def _most(model: Model, drops: Drops) -> str:
    most = max(drops.skipped, key=lambda drop: drops.harm * drop.change, default=None)
    return f"{model.name} needs most {drop_words(most, drops)}." if most else ""


def _sign(every: Iterable[Drops]) -> str:
    kinds = dict.fromkeys(drops.better for drops in every)
    if len(kinds) == 1:
        return f"{_SIGN[next(iter(kinds))].capitalize()}."
    return " ".join(f"Where {better} P is better, {_SIGN[better]}." for better in kinds)


def _drops_panel(model: Model, drops: Drops, y: Axis) -> Panel:
    title = f"{model.name}: {formats.plain(drops.measure)} {formats.number(drops.original, 4)} with all layers"
    zeroed = [drop for drop in drops.zeroed if math.isfinite(drop.change)] if zeroing_differs(drops) else []
    circles = _changes(model, drops, zeroed, "open", f"{model.name}, branches zeroed")
    return _panel(model, title, y, (*_bars(model, drops, drops.skipped, y), circles))


def _panel(model: Model, title: str, y: Axis, traces: Iterable[Trace]) -> Panel:
    x = replace(axes.layers(model.diagnosis.layers), low=0.4, high=model.diagnosis.layers + 0.6)
    return Panel(title=title, x=x, y=y, traces=tuple(t for t in traces if t.points), key=model.key)


def _bars(model: Model, drops: Drops, chosen: Sequence[Drop], y: Axis) -> tuple[Trace, ...]:
    """Bars with their intervals; a cross at the end of harm where the measure is not finite."""
    finite = [drop for drop in chosen if math.isfinite(drop.change)]
    lost = [drop for drop in chosen if not math.isfinite(drop.change)]
    known = [(float(d.first), d.low, d.high) for d in finite if d.low is not None and d.high is not None]
    spans = tuple(point for x, low, high in known for point in ((x, low), (x, high), (x, math.nan)))
    edge = y.inside(None if drops.harm > 0 else y.low)
    return (
        _changes(model, drops, finite, "bar", model.name),
        Trace(key=model.key, role="span", label=f"{model.name}, 95% interval", points=spans),
        _changes(model, drops, lost, "ended", model.name, edge),
    )


def _changes(
    model: Model, drops: Drops, chosen: Sequence[Drop], role: Role, label: str, edge: float | None = None
) -> Trace:
    """One point for each drop, at its change or at the edge of the axis."""
    return Trace(
        key=model.key,
        role=role,
        label=label,
        points=tuple((float(drop.first), drop.change if edge is None else edge) for drop in chosen),
        texts=tuple(drop_words(drop, drops) for drop in chosen),
    )


def _axis(every: Sequence[Drops]) -> Axis:
    values = chain.from_iterable(map(_ends, every))
    return replace(axes.spread("", values), label=f"ΔP, {formats.plain(every[0].unit)}")


def _ends(drops: Drops) -> Iterator[float]:
    """Everything that a chart of these drops has to hold."""
    for drop in (*drops.skipped, *drops.zeroed):
        yield from (value for value in (drop.change, drop.low, drop.high) if value is not None)


def _slugs(texts: Iterable[str]) -> Iterator[str]:
    """A different file name for each text; none ends in a hyphen and a number, as the names of panels do."""
    used: set[str] = set()
    for text in texts:
        slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
        slug = f"task_{slug}" if not slug or slug.isdigit() else slug
        candidates = (slug, *(f"{slug}_{count}" for count in range(2, len(used) + 2)))
        used.add(chosen := next(name for name in candidates if name not in used))
        yield chosen
