"""The tables of sets that are removed together, and of the least used experts."""

from __future__ import annotations

from collections.abc import Iterable

from mixln import formats
from mixln.diagnostics.results import Experts, RemovedSet, Selection
from mixln.report.tables.layers import LayerColumn
from mixln.report.wording import removal as words
from mixln.report.wording import tables

FEWEST = 4
"""Number of least used experts in a row of their table."""


def set_columns(selection: Selection) -> tuple[LayerColumn, ...]:
    """The sets of the three methods, one per row."""
    sets = selection.sets

    def share(one: RemovedSet) -> str:
        return f"{one.parameters:,} ({one.parameters / selection.parameters:.1%})"

    return (
        _column(words.METHOD, [words.METHODS[one.method] for one in sets]),
        _column(words.REMOVED, [words.in_order(one) for one in sets]),
        _column(selection.measure, [formats.number(one.value, 4) for one in sets]),
        _column(tables.drop(selection.unit), [formats.signed(one.change) for one in sets]),
        _column(tables.INTERVAL, [formats.interval(one.low, one.high) or formats.NOTHING for one in sets]),
        _column(words.SAVED, map(share, sets)),
    )


def expert_columns(use: Experts) -> tuple[LayerColumn, ...]:
    """The most used and the least used experts of each layer, one layer per row. Experts are counted from 0."""
    ranked = [sorted(range(len(row)), key=row.__getitem__) for row in use.chosen]
    rows = list(zip(ranked, use.chosen, use.weight, strict=True))
    return (
        _column(words.EXPERT_LAYER, map(str, use.layers)),
        _column(words.CHOSEN, [f"{order[-1]}: {row[order[-1]]:.1%}" for order, row, _ in rows]),
        _column(words.LEAST, [", ".join(map(str, order[:FEWEST])) for order, _, _ in rows]),
        _column(words.SHARES, [", ".join(f"{row[expert]:.2%}" for expert in order[:FEWEST]) for order, row, _ in rows]),
        _column(
            words.WEIGHTS,
            [", ".join(formats.number(weight[expert]) for expert in order[:FEWEST]) for order, _, weight in rows],
        ),
        _column(words.NEVER, [str(sum(share == 0 for share in row)) for _, row, _ in rows]),
    )


def _column(heading: str, cells: Iterable[str]) -> LayerColumn:
    return LayerColumn(heading=heading, short="", cells=tuple(cells))
