"""A table of text cells, rendered in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from textwrap import wrap

from markupsafe import Markup
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mixln.report.names import plain
from mixln.report.wording.phrases import Pieces

WIDEST, LEAST = (1_000, 30, 24, 20, 16, 12), 8
"""Maximum widths of a text column in characters, tried from the widest to the narrowest, and the last resort."""


@dataclass(frozen=True, kw_only=True)
class TableGrid:
    """Headings and rows.

    :param title: title above the table.
    :param rows: rows of cells; the pieces of a cell may be put on separate lines.
    :param words: number of leading columns with text; the others are numbers, right-aligned.
    :param caption: explanation of the columns.
    """

    title: str = ""
    head: tuple[str, ...]
    rows: tuple[tuple[Pieces, ...], ...]
    words: int = 1
    caption: str = ""


@dataclass(frozen=True)
class ResponsiveTable:
    """A grid drawn as one table or, if the terminal is too narrow, as several with fewer number columns each."""

    grid: TableGrid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        grid, tables = self.grid, []
        numbers = range(grid.words, len(grid.head))
        for size, widest in (*product(range(len(numbers), 0, -1), WIDEST), (1, LEAST)):
            parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
            tables = [_table(grid, [*range(grid.words), *part], widest) for part in parts]
            if all(_width(table, console, options) <= options.max_width for table in tables):
                break
        for table in tables:
            if table is not tables[0]:
                yield ""
            yield table


def terminal(grid: TableGrid) -> RenderableType:
    """The grid for a terminal; the pieces of a cell are on separate lines."""
    title = [Text(grid.title, style="bold")] if grid.title else []
    return Group(*title, ResponsiveTable(grid))


def _table(grid: TableGrid, columns: Sequence[int], widest: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index in columns:
        longest = max((len(piece) for row in grid.rows for piece in row[index]), default=0)
        head = plain(grid.head[index])
        if index < grid.words:  # fixed width: rich would shrink the number columns instead
            table.add_column(head, width=min(max(longest, len(head)), widest), overflow="fold")
        else:  # numbers never wrap, so wrap their heading to their width
            lines = wrap(head, longest, break_long_words=False) or [""]
            width = max(longest, *map(len, lines))
            table.add_column("\n".join(lines), justify="right", no_wrap=True, min_width=width)
    for row in grid.rows:
        table.add_row(*(Text("\n".join(row[index])) for index in columns))
    return table


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """The minimum width at which nothing in a table is truncated."""
    return table.__rich_measure__(console, options.update(max_width=10_000)).minimum


def escaped(text: str) -> str:
    """Escapes the characters that are special in Markdown, and replaces control characters."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", plain(text))


def markdown(grid: TableGrid) -> str:
    """The table in GitHub's Markdown, its title above and its caption below."""
    rules = ["---" if index < grid.words else "---:" for index in range(len(grid.head))]
    lines = [list(map(escaped, grid.head)), rules]
    lines += [[escaped(" ".join(pieces)) for pieces in row] for row in grid.rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    title = f"**{escaped(grid.title)}**\n\n" if grid.title else ""
    return title + table + (f"\n{escaped(grid.caption)}\n" if grid.caption else "")


def html(grid: TableGrid) -> Markup:
    """The table as HTML, without its title; the first cell of a row is a row heading."""
    caption = Markup("<caption><span>{}</span></caption>\n").format(grid.caption) if grid.caption else ""
    classes = ["" if index < grid.words else Markup(' class="number"') for index in range(len(grid.head))]
    head = Markup().join(map(Markup('<th scope="col"{}>{}</th>').format, classes, grid.head))
    body = Markup()
    for first, *others in grid.rows:
        cells = Markup().join(map(Markup("<td{}>{}</td>").format, classes[1:], map(spans, others)))
        body += Markup('<tr><th scope="row">{}</th>{}</tr>\n').format(" ".join(first), cells)
    return Markup('<table class="results">\n{}<thead>\n<tr>{}</tr>\n</thead>\n<tbody>\n{}</tbody>\n</table>\n').format(
        caption, head, body
    )


def spans(pieces: Pieces) -> Markup:
    """The pieces of a cell, each of which stays on one line."""
    return Markup(" ").join(map(Markup("<span>{}</span>").format, pieces))
