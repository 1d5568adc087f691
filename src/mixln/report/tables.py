"""The table of a comparison: one definition of its columns, drawn in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixln.compare.measure import Figure, Measure
from mixln.compare.results import Cell, Floor, PlacementSummary, Summary
from mixln.compare.tasks import TASKS
from mixln.report import formats

GroupName = Literal["", "best", "common"]
Pieces = tuple[str, ...]
"""The text of one cell, in pieces that may stand on lines of their own."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table.

    :param heading: in full, standing alone.
    :param sub: under the heading of its group.
    :param short: where space is scarce.
    :param group: which columns stand under a heading of their own.
    :param kind: `name`: a title, then the text to type; `number`: set to the right.
    :param of_row: the cell of one placement.
    :param of_floor: the cell of the simplest model: of text, the unigram model.
    """

    heading: str
    sub: str
    short: str
    kind: Literal["name", "text", "number"]
    of_row: Callable[[PlacementSummary], Pieces]
    of_floor: Callable[[Floor], Pieces] = lambda _: ("",)
    group: GroupName = ""


def measure_of(summary: Summary) -> Measure:
    """What its trials are compared by."""
    return TASKS[summary.task].measure


def learning_rates(summary: Summary) -> tuple[float, ...]:
    """Every learning rate of the comparison, in ascending order."""
    return tuple(sorted({cell.learning_rate for row in summary.placements for cell in _cells(row)}))


def common_learning_rate(summary: Summary) -> float:
    """The learning rate at which all placements are compared."""
    return summary.placements[0].common.learning_rate


def group_title(summary: Summary, group: GroupName) -> str:
    """The heading over a group of columns; empty over those that stand alone."""
    if group == "common":
        return f"at learning rate {formats.learning_rate(common_learning_rate(summary))}"
    return "at its best learning rate" if group else ""


def columns(summary: Summary) -> tuple[Column, ...]:
    """The columns, in their order; those of the common learning rate only where there are several."""
    measure, several = measure_of(summary), len(learning_rates(summary)) > 1
    best = "best" if several else ""
    baseline = baseline_title(summary)
    at_common = f"at {formats.learning_rate(common_learning_rate(summary))}"
    common = (
        Column(
            heading=f"{measure.name} {at_common}",
            sub=measure.name,
            short=measure.name,
            group="common",
            kind="number",
            of_row=lambda row: _number(measure, row.common),
            of_floor=lambda floor: (measure.say(floor),),
        ),
        Column(
            heading=f"difference from {baseline} {at_common}",
            sub="difference",
            short="difference",
            group="common",
            kind="number",
            of_row=lambda row: _difference(summary, row, row.common),
        ),
    )
    return (
        Column(
            heading="placement",
            sub="placement",
            short="placement",
            kind="name",
            of_row=lambda row: _names(row),
            of_floor=lambda _: (measure.floor,),
        ),
        Column(heading="init", sub="init", short="init", kind="text", of_row=lambda row: (formats.plain(row.init),)),
        Column(
            heading="best learning rate" if several else "learning rate",
            sub="learning rate",
            short="lr",
            group=best,
            kind="number",
            of_row=lambda row: (formats.learning_rate(row.best.learning_rate),),
        ),
        Column(
            heading=measure.name,
            sub=measure.name,
            short=measure.name,
            group=best,
            kind="number",
            of_row=lambda row: _number(measure, row.best),
            of_floor=lambda floor: (measure.say(floor),),
        ),
        Column(
            heading=f"difference from {baseline}",
            sub="difference",
            short="difference",
            group=best,
            kind="number",
            of_row=lambda row: _difference(summary, row, row.best),
        ),
        *(common if several else ()),
        *map(_figure, measure.figures),
        Column(heading="ended", sub="ended", short="ended", kind="text", of_row=lambda row: _ended(summary, row)),
        Column(
            heading=f"{measure.amount}/s",
            sub=f"{measure.amount}/s",
            short=measure.rate,
            kind="number",
            of_row=lambda row: (formats.rate(row.best.tokens_per_second),),
        ),
    )


def _figure(figure: Figure) -> Column:
    return Column(
        heading=figure.name,
        sub=figure.name,
        short=figure.short,
        kind="number",
        of_row=lambda row: (figure.say(row.best),),
        of_floor=lambda floor: (figure.say(floor) if figure.of(floor) is not None else "",),
    )


def rows(summary: Summary, chosen: tuple[Column, ...]) -> tuple[tuple[Pieces, ...], ...]:
    """The cells of the chosen columns: a row for each placement, then the simplest model."""
    placements = tuple(tuple(column.of_row(row) for column in chosen) for row in summary.placements)
    return (*placements, tuple(column.of_floor(summary.floor) for column in chosen))


def caption(summary: Summary) -> str:
    """What the columns mean, in one or two sentences."""
    measure = measure_of(summary)
    text = (
        f"Difference: {measure.said} against {baseline_title(summary)}, paired by seed, with its 95% confidence "
        f"interval; {'negative' if measure.lower_is_better else 'positive'} is better. "
        f"{measure.name.capitalize()} and difference are of the seeds that trained, where some did. "
        "Ended: trials that finished, and what became of the others"
    )
    if len(learning_rates(summary)) > 1:
        names = [figure.name for figure in measure.figures]
        text += f" (all learning rates; {', '.join(names)} and {measure.amount}/s are at the best one)"
    return text + "."


def baseline_title(summary: Summary) -> str:
    """The title of the placement that the others are compared with."""
    titles = (row.title for row in summary.placements if row.placement == summary.baseline)
    return formats.plain(next(titles, summary.baseline))


def terminal_table(summary: Summary) -> RenderableType:
    """The table for a terminal of 80 columns and more; the common learning rate gets a table of its own."""
    every = columns(summary)
    main = tuple(column for column in every if column.group != "common")
    common = tuple(column for column in every if column.group == "common")
    parts: list[RenderableType] = [
        _table(summary, main, f"Each placement {group_title(summary, 'best')}" if common else "")
    ]
    if common:
        parts += ["", _table(summary, (every[0], *common), f"Each placement {group_title(summary, 'common')}")]
    return Group(*parts, "", Text(caption(summary), style="dim"))


def markdown_table(summary: Summary) -> str:
    """The table in GitHub's Markdown, ending in a line break."""
    every = columns(summary)
    lines = [[escaped(column.heading) for column in every], ["---:" if c.kind == "number" else "---" for c in every]]
    for row in rows(summary, every):
        lines.append([_markdown_cell(column, pieces) for column, pieces in zip(every, row, strict=True)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table(summary: Summary, chosen: tuple[Column, ...], title: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_edge=False,
        padding=(0, 0, 0, 0),
    )
    for column in chosen:
        number = column.kind == "number"  # only names and words may wrap
        table.add_column(column.short, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows(summary, chosen):
        table.add_row(*(_terminal_cell(column, pieces) for column, pieces in zip(chosen, row, strict=True)))
    return table


def _terminal_cell(column: Column, pieces: Pieces) -> Text:
    if column.kind == "name":
        return Text("\n").join([Text(pieces[0], style="bold"), *(Text(piece, style="dim") for piece in pieces[1:])])
    return Text("\n".join(pieces))


def _markdown_cell(column: Column, pieces: Pieces) -> str:
    if column.kind == "name":
        return " ".join([escaped(pieces[0]), *map(_markdown_code, pieces[1:])])
    return " ".join(pieces) if column.kind == "number" else escaped(" ".join(pieces))


def escaped(text: str) -> str:
    """A text whose characters mean nothing to Markdown or to a terminal that shows it."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", formats.plain(text))


def _markdown_code(text: str) -> str:
    return escaped(text) if "`" in text else "`" + formats.plain(text).replace("|", "\\|") + "`"


def _names(row: PlacementSummary) -> Pieces:
    title, text = formats.plain(row.title), formats.plain(row.placement)
    return (title,) if title == text else (title, text)


def _number(measure: Measure, cell: Cell) -> Pieces:
    """A mean over the seeds that trained; behind it how many stalled, where some did."""
    text = measure.say(cell)
    return (text.removesuffix(cell.beside), cell.beside.strip()) if cell.beside else (text,)


def _difference(summary: Summary, row: PlacementSummary, cell: Cell) -> Pieces:
    if cell.difference is not None:
        return measure_of(summary).difference(cell.difference)
    return (formats.NOTHING, "(baseline)") if row.placement == summary.baseline else (formats.NOTHING,)


def _ended(summary: Summary, row: PlacementSummary) -> Pieces:
    cells = _cells(row)
    diverged_at = [
        result.step
        for result in summary.trials
        if (result.trial.placement, result.trial.init, result.status) == (row.placement, row.init, "diverged")
    ]
    return formats.ended(
        finished=sum(cell.finished for cell in cells),
        seeds=sum(cell.seeds for cell in cells),
        stalled=sum(cell.stalled for cell in cells),
        diverged=sum(cell.diverged for cell in cells),
        failed=sum(cell.failed for cell in cells),
        diverged_at=diverged_at,
    )


def _cells(row: PlacementSummary) -> tuple[Cell, ...]:
    return row.cells or (row.best,)
