"""The table of a model's layers: one definition of its columns, drawn in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from rich import box
from rich.table import Table

from mixln.diagnostics.results import Diagnosis, Drop, Drops
from mixln.diagnostics.verdict import gate_estimate
from mixln.report import formats
from mixln.report.drops import zeroing_differs


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    :param heading: in full, for the page; empty: not shown there.
    :param short: for the terminal, with line breaks; empty: not shown there.
    :param cells: one a row.
    """

    heading: str
    short: str
    cells: tuple[str, ...]


def columns(diagnosis: Diagnosis) -> tuple[Column, ...]:
    """What is known of each layer; a quantity that was not measured has no column."""
    return tuple(column for column in _every(diagnosis) if any(cell != formats.NOTHING for cell in column.cells))


def block_columns(drops: Drops) -> tuple[Column, ...]:
    """The blocks of several layers that were skipped, a row each."""
    blocks = drops.blocks
    intervals = tuple(formats.interval(block.low, block.high) for block in blocks)
    return (
        Column(heading="layers", short="", cells=tuple(f"{block.first}–{block.last}" for block in blocks)),
        Column(heading=drops.measure, short="", cells=tuple(formats.number(block.value, 4) for block in blocks)),
        Column(heading=f"ΔP, {drops.unit}", short="", cells=tuple(formats.signed(block.change) for block in blocks)),
        *([Column(heading="95% interval", short="", cells=intervals)] if any(intervals) else []),
    )


def html_table(chosen: Sequence[Column]) -> str:
    """The table in HTML; the first column names the rows."""
    chosen = [column for column in chosen if column.heading]
    head = "".join(f'<th scope="col" class="number">{escape(formats.plain(column.heading))}</th>' for column in chosen)
    rows = ""
    for first, *others in zip(*(column.cells for column in chosen), strict=True):
        cells = "".join(f'<td class="number"><span>{escape(cell)}</span></td>' for cell in others)
        rows += f'<tr><th scope="row" class="number">{escape(first)}</th>{cells}</tr>\n'
    return f'<table class="layers">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n'


def terminal_diagnosis(diagnosis: Diagnosis) -> Table:
    """The table for a terminal of 100 columns: one row a layer."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    chosen = [column for column in columns(diagnosis) if column.short]
    for column in chosen:
        table.add_column(column.short, justify="right", no_wrap=True)
    for row in zip(*(column.cells for column in chosen), strict=True):
        table.add_row(*row)
    return table


def _every(diagnosis: Diagnosis) -> Iterator[Column]:
    layers = range(1, diagnosis.layers + 1)
    yield Column(heading="layer", short="layer", cells=tuple(map(str, layers)))
    angles, stream = diagnosis.angular, diagnosis.stream
    yield Column(
        heading="angle between input and output, fraction of π",
        short="angle\n/ π",
        cells=_cells((row[0] for row in angles.distance), formats.angle),
    )
    yield Column(heading="block influence", short="", cells=_cells(angles.influence, formats.angle))
    if diagnosis.drops:
        yield from _drop_columns(diagnosis.drops, layers, f"ΔP, {diagnosis.drops.unit}", "ΔP")
    yield Column(
        heading=f"estimate of ΔP from the gradient, nats per {'image' if diagnosis.drops and 'image' in diagnosis.drops.unit else 'token'}",
        short="",
        cells=_cells(gate_estimate(diagnosis), formats.signed),
    )
    for drops in diagnosis.tasks:
        yield from _drop_columns(drops, layers, f"ΔP, {drops.measure}", "")
    if diagnosis.gradients:
        norm = diagnosis.gradients.norm
        parts = (("attention", norm.attention), ("feed-forward", norm.feed_forward if norm.attention else ()))
        whole = map(math.hypot, norm.attention or [0.0] * len(norm.feed_forward), norm.feed_forward)
        total = "" if norm.attention else "gradient norm"
        yield Column(heading=total, short="gradient\nnorm", cells=_cells(whole, formats.number))
        for name, values in parts:
            yield Column(heading=f"gradient norm, {name}", short="", cells=_cells(values, formats.number))
    yield Column(
        heading="variance of the stream after it",
        short="stream\nvariance",
        cells=_cells(stream.variance.feed_forward, formats.number),
    )
    if diagnosis.jacobian:
        yield Column(
            heading="largest singular value of J − I",
            short="",
            cells=_cells(diagnosis.jacobian.distance, formats.number),
        )


def _drop_columns(drops: Drops, layers: Iterable[int], heading: str, short: str) -> Iterator[Column]:
    """The change without each layer with its interval, and that with zeroed branches where it is another one."""
    layers = tuple(layers)

    def of(chosen: Sequence[Drop], text: Callable[[Drop], str]) -> tuple[str, ...]:
        known = {drop.first: text(drop) for drop in chosen}
        return tuple(known.get(layer) or formats.NOTHING for layer in layers)

    yield Column(heading=heading, short=short, cells=of(drops.skipped, lambda drop: formats.signed(drop.change)))
    yield Column(
        heading="95% interval",
        short=short and "95% interval",
        cells=of(drops.skipped, lambda drop: formats.interval(drop.low, drop.high)),
    )
    if zeroing_differs(drops):
        yield Column(
            heading=f"{heading}, branches zeroed",
            short=short and f"{short}\nzeroed",
            cells=of(drops.zeroed, lambda drop: formats.signed(drop.change)),
        )


def _cells(values: Iterable[float | None], text: Callable[[float], str]) -> tuple[str, ...]:
    return tuple(formats.NOTHING if value is None else text(value) for value in values)
