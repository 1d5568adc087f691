"""The table of a model's layers. Its columns are defined once, and rendered in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from rich import box
from rich.table import Table

from mixln import formats
from mixln.diagnostics.findings import gate_estimate
from mixln.diagnostics.results import Diagnosis, Drop, Drops, zeroing_differs
from mixln.report.names import plain
from mixln.report.wording import charts, diagnosis_charts
from mixln.report.wording import tables as words


@dataclass(frozen=True, kw_only=True)
class LayerColumn:
    """One column.

    :param heading: heading on the page; empty to omit the column there.
    :param short: heading in the terminal, with line breaks; empty to omit the column there.
    :param cells: one cell per row.
    """

    heading: str
    short: str
    cells: tuple[str, ...]


def columns(diagnosis: Diagnosis) -> tuple[LayerColumn, ...]:
    """The measured quantities of each layer; a quantity that was not measured has no column."""
    return tuple(column for column in _every(diagnosis) if any(cell != formats.NOTHING for cell in column.cells))


def block_columns(drops: Drops) -> tuple[LayerColumn, ...]:
    """The skipped blocks of several layers, one per row."""
    blocks = drops.blocks
    intervals = tuple(formats.interval(block.low, block.high) for block in blocks)
    return (
        LayerColumn(heading=words.LAYERS, short="", cells=tuple(f"{block.first}–{block.last}" for block in blocks)),
        LayerColumn(
            heading=diagnosis_charts.measure(drops),
            short="",
            cells=tuple(formats.number(block.value, 4) for block in blocks),
        ),
        LayerColumn(
            heading=words.drop(drops.unit), short="", cells=tuple(formats.signed(block.change) for block in blocks)
        ),
        *([LayerColumn(heading=words.INTERVAL, short="", cells=intervals)] if any(intervals) else []),
    )


def html_table(chosen: Sequence[LayerColumn]) -> Markup:
    """The table as HTML; the first column has the row headings."""
    chosen = [column for column in chosen if column.heading]
    heading = Markup('<th scope="col" class="number">{}</th>')
    head = Markup().join(heading.format(plain(column.heading)) for column in chosen)
    rows = Markup()
    for first, *others in zip(*(column.cells for column in chosen), strict=True):
        cells = Markup().join(map(Markup('<td class="number"><span>{}</span></td>').format, others))
        rows += Markup('<tr><th scope="row" class="number">{}</th>{}</tr>\n').format(first, cells)
    return Markup('<table class="layers">\n<thead>\n<tr>{}</tr>\n</thead>\n<tbody>\n{}</tbody>\n</table>\n').format(
        head, rows
    )


def terminal_diagnosis(diagnosis: Diagnosis) -> Table:
    """The table for a terminal of 100 columns: one row per layer."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    chosen = [column for column in columns(diagnosis) if column.short]
    for column in chosen:
        table.add_column(column.short, justify="right", no_wrap=True)
    for row in zip(*(column.cells for column in chosen), strict=True):
        table.add_row(*row)
    return table


def _every(diagnosis: Diagnosis) -> Iterator[LayerColumn]:
    layers = range(1, diagnosis.layers + 1)
    angles, drops = diagnosis.angular, diagnosis.drops
    yield LayerColumn(heading=words.LAYER[0], short=words.LAYER[1], cells=tuple(map(str, layers)))
    yield LayerColumn(
        heading=words.ANGLE[0],
        short=words.ANGLE[1],
        cells=_cells((row[0] for row in angles.distance), formats.angle),
    )
    yield LayerColumn(heading=words.INFLUENCE, short="", cells=_cells(angles.influence, formats.angle))
    if drops:
        yield from _drop_columns(drops, layers, words.drop(drops.unit), words.DROP)
    estimates = _cells(gate_estimate(diagnosis), formats.signed)
    yield LayerColumn(heading=words.estimate(drops.unit if drops else "nats"), short="", cells=estimates)
    for task in diagnosis.tasks:
        yield from _drop_columns(task, layers, words.drop(diagnosis_charts.measure(task)), "")
    yield from _gradients(diagnosis)
    yield LayerColumn(
        heading=words.STREAM_VARIANCE[0],
        short=words.STREAM_VARIANCE[1],
        cells=_cells(diagnosis.stream.variance.feed_forward, formats.number),
    )
    if diagnosis.jacobian:
        yield LayerColumn(heading=words.IDENTITY, short="", cells=_cells(diagnosis.jacobian.distance, formats.number))


def _gradients(diagnosis: Diagnosis) -> Iterator[LayerColumn]:
    if not diagnosis.gradients:
        return
    norm = diagnosis.gradients.norm
    whole = map(math.hypot, norm.attention or [0.0] * len(norm.feed_forward), norm.feed_forward)
    total = "" if norm.attention else words.GRADIENT_NORM[0]
    yield LayerColumn(heading=total, short=words.GRADIENT_NORM[1], cells=_cells(whole, formats.number))
    parts = ((charts.ATTENTION, norm.attention), (charts.FEED_FORWARD, norm.feed_forward if norm.attention else ()))
    for name, values in parts:
        yield LayerColumn(heading=words.gradient_norm(name), short="", cells=_cells(values, formats.number))


def _drop_columns(drops: Drops, layers: Iterable[int], heading: str, short: str) -> Iterator[LayerColumn]:
    """The change without each layer with its interval, and that with zeroed branches if it differs."""
    layers = tuple(layers)

    def of(chosen: Sequence[Drop], text: Callable[[Drop], str]) -> tuple[str, ...]:
        known = {drop.first: text(drop) for drop in chosen}
        return tuple(known.get(layer) or formats.NOTHING for layer in layers)

    yield LayerColumn(heading=heading, short=short, cells=of(drops.skipped, lambda drop: formats.signed(drop.change)))
    yield LayerColumn(
        heading=words.INTERVAL,
        short=short and words.INTERVAL,
        cells=of(drops.skipped, lambda drop: formats.interval(drop.low, drop.high)),
    )
    if zeroing_differs(drops):
        full, brief = words.zeroed(heading)
        cells = of(drops.zeroed, lambda drop: formats.signed(drop.change))
        yield LayerColumn(heading=full, short=short and brief, cells=cells)
    for chosen, (full, brief) in (
        (drops.attention, words.ONLY_ATTENTION),
        (drops.feed_forward, words.ONLY_FEED_FORWARD),
    ):
        if chosen:
            cells = of(chosen, lambda drop: formats.signed(drop.change))
            yield LayerColumn(heading=f"{heading}, {full}", short=short and brief, cells=cells)
            intervals = of(chosen, lambda drop: formats.interval(drop.low, drop.high))
            yield LayerColumn(heading=words.INTERVAL, short="", cells=intervals)


def _cells(values: Iterable[float | None], text: Callable[[float], str]) -> tuple[str, ...]:
    return tuple(formats.NOTHING if value is None else text(value) for value in values)
