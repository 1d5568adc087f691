"""The table of a comparison. Its columns are defined once, and rendered in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixln import formats
from mixln.compare.metrics import Measured
from mixln.compare.results import Cell, FrequencyBaseline, PlacementSummary, Summary
from mixln.compare.tasks import TASKS
from mixln.metrics import Metric
from mixln.report.names import plain
from mixln.report.tables.grid import escaped
from mixln.report.wording import tables as words
from mixln.report.wording.nouns import nouns
from mixln.report.wording.phrases import Pieces, at_rate, beside, difference, ended
from mixln.report.wording.tables import Heading

GroupName = Literal["", "best", "common"]


@dataclass(frozen=True, kw_only=True)
class ComparisonColumn:
    """One column of the table.

    :param group: the group of columns with a common heading; empty for none.
    :param kind: `name`: a title, then the specification of the placement; `number`: right-aligned.
    :param of_row: makes the cell of one placement.
    :param of_floor: makes the cell of the trivial model, for text the unigram baseline.
    """

    heading: Heading
    kind: Literal["name", "text", "number"]
    of_row: Callable[[PlacementSummary], Pieces]
    of_floor: Callable[[FrequencyBaseline], Pieces] = lambda _: ("",)
    group: GroupName = ""


def common_learning_rate(summary: Summary) -> float:
    """The learning rate at which all placements are compared."""
    return summary.placements[0].common.learning_rate


def group_title(summary: Summary, group: GroupName) -> str:
    """The heading of a group of columns; empty for columns without a group."""
    if group == "common":
        return at_rate(common_learning_rate(summary))
    return words.TUNED if group else ""


def columns(summary: Summary) -> tuple[ComparisonColumn, ...]:
    """The columns in order; those of the common learning rate only if there are several rates."""
    metrics, tuned = TASKS[summary.task].metrics, len(summary.learning_rates) > 1
    best: GroupName = "best" if tuned else ""
    ranking, floor = metrics.ranking, nouns(summary.task).floor
    return (
        ComparisonColumn(heading=Heading.of(words.PLACEMENT), kind="name", of_row=_names, of_floor=lambda _: (floor,)),
        ComparisonColumn(heading=Heading.of(words.INIT), kind="text", of_row=lambda row: (plain(row.init),)),
        ComparisonColumn(
            heading=words.best_rate(tuned=tuned),
            group=best,
            kind="number",
            of_row=lambda row: (formats.learning_rate(row.best.learning_rate),),
        ),
        *_ranked(summary, ranking, words.metric(ranking), words.difference(baseline_title(summary)), best),
        *(_at_common(summary, ranking) if tuned else ()),
        *map(_beside, metrics.beside),
        ComparisonColumn(heading=Heading.of(words.ENDED), kind="text", of_row=lambda row: _ended(summary, row)),
        ComparisonColumn(
            heading=words.throughput(summary.task),
            kind="number",
            of_row=lambda row: (formats.rate(row.best.tokens_per_second),),
        ),
    )


def _at_common(summary: Summary, ranking: Metric[Measured]) -> tuple[ComparisonColumn, ComparisonColumn]:
    rate = common_learning_rate(summary)
    gap = words.difference(baseline_title(summary), rate)
    return _ranked(summary, ranking, words.at_common(ranking.name, rate), gap, "common")


def _ranked(
    summary: Summary, ranking: Metric[Measured], heading: Heading, gap: Heading, group: GroupName
) -> tuple[ComparisonColumn, ComparisonColumn]:
    """The metric by which placements are ranked, and its difference from the baseline."""

    def cell(row: PlacementSummary) -> Cell:
        return row.common if group == "common" else row.best

    return (
        ComparisonColumn(
            heading=heading,
            group=group,
            kind="number",
            of_row=lambda row: _number(ranking, cell(row)),
            of_floor=lambda floor: (ranking.say(floor),),
        ),
        ComparisonColumn(
            heading=gap, group=group, kind="number", of_row=lambda row: _difference(summary, row, cell(row))
        ),
    )


def _beside(metric: Metric[Measured]) -> ComparisonColumn:
    return ComparisonColumn(
        heading=words.metric(metric),
        kind="number",
        of_row=lambda row: (metric.say(row.best),),
        of_floor=lambda floor: (metric.say(floor) if metric.value(floor) is not None else "",),
    )


def rows(summary: Summary, chosen: tuple[ComparisonColumn, ...]) -> tuple[tuple[Pieces, ...], ...]:
    """The cells of the chosen columns: a row for each placement, then the trivial model."""
    placements = tuple(tuple(column.of_row(row) for column in chosen) for row in summary.placements)
    return (*placements, tuple(column.of_floor(summary.floor) for column in chosen))


def caption(summary: Summary) -> str:
    """The caption that explains the columns."""
    return words.comparison(summary.task, baseline_title(summary), tuned=len(summary.learning_rates) > 1)


def baseline_title(summary: Summary) -> str:
    """The title of the baseline placement."""
    titles = (row.title for row in summary.placements if row.placement == summary.baseline)
    return plain(next(titles, summary.baseline))


def terminal_table(summary: Summary) -> RenderableType:
    """The table for a terminal of at least 80 columns; the common learning rate has a separate table."""
    every = columns(summary)
    main = tuple(column for column in every if column.group != "common")
    common = tuple(column for column in every if column.group == "common")
    parts: list[RenderableType] = [
        _table(summary, main, words.each_placement(group_title(summary, "best")) if common else "")
    ]
    if common:
        parts += ["", _table(summary, (every[0], *common), words.each_placement(group_title(summary, "common")))]
    return Group(*parts, "", Text(caption(summary), style="dim"))


def markdown_table(summary: Summary) -> str:
    """The table in GitHub's Markdown, with a final line feed."""
    every = columns(summary)
    lines = [
        [escaped(column.heading.full) for column in every],
        ["---:" if c.kind == "number" else "---" for c in every],
    ]
    for row in rows(summary, every):
        lines.append([_markdown_cell(column, pieces) for column, pieces in zip(every, row, strict=True)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table(summary: Summary, chosen: tuple[ComparisonColumn, ...], title: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_edge=False,
        padding=(0, 0, 0, 0),
    )
    for column in chosen:
        number = column.kind == "number"  # a wrapped number would be misread, so only text wraps
        table.add_column(column.heading.short, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows(summary, chosen):
        table.add_row(*(_terminal_cell(column, pieces) for column, pieces in zip(chosen, row, strict=True)))
    return table


def _terminal_cell(column: ComparisonColumn, pieces: Pieces) -> Text:
    if column.kind == "name":
        return Text("\n").join([Text(pieces[0], style="bold"), *(Text(piece, style="dim") for piece in pieces[1:])])
    return Text("\n".join(pieces))


def _markdown_cell(column: ComparisonColumn, pieces: Pieces) -> str:
    if column.kind == "name":
        return " ".join([escaped(pieces[0]), *map(_markdown_code, pieces[1:])])
    return " ".join(pieces) if column.kind == "number" else escaped(" ".join(pieces))


def _markdown_code(text: str) -> str:
    return escaped(text) if "`" in text else "`" + plain(text).replace("|", "\\|") + "`"


def _names(row: PlacementSummary) -> Pieces:
    title, text = plain(row.title), plain(row.placement)
    return (title,) if title == text else (title, text)


def _number(metric: Metric[Measured], cell: Cell) -> Pieces:
    """A mean over the seeds that trained, followed by the number of stalled seeds if any."""
    value, stalled = metric.value(cell), beside(cell.stalled_beside).strip()
    return (metric.say_value(value), stalled) if value is not None and stalled else (metric.say_value(value),)


def _difference(summary: Summary, row: PlacementSummary, cell: Cell) -> Pieces:
    if cell.difference is not None:
        return difference(TASKS[summary.task].metrics.ranking, cell.difference)
    return (formats.NOTHING, words.BASELINE) if row.placement == summary.baseline else (formats.NOTHING,)


def _ended(summary: Summary, row: PlacementSummary) -> Pieces:
    diverged_at = [
        result.step
        for result in summary.trials
        if (result.trial.placement, result.trial.init, result.status) == (row.placement, row.init, "diverged")
    ]
    return ended(
        finished=sum(cell.finished for cell in row.cells),
        seeds=sum(cell.seeds for cell in row.cells),
        stalled=sum(cell.stalled for cell in row.cells),
        diverged=sum(cell.diverged for cell in row.cells),
        failed=sum(cell.failed for cell in row.cells),
        diverged_at=diverged_at,
    )
