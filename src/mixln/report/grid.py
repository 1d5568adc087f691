"""A small table whose cells are text already: drawn in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from rich import box
from rich.table import Table
from rich.text import Text

from mixln.report import formats
from mixln.report.tables import Pieces, escaped

LONGEST = 20
"""Characters up to which a name is not broken."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Headings and rows.

    :param title: what the table shows; it stands above it.
    :param rows: of cells, each in pieces that may stand on lines of their own.
    :param words: how many of the first columns are words; the others are numbers, set to the right.
    :param caption: what the columns mean.
    """

    title: str = ""
    head: tuple[str, ...]
    rows: tuple[tuple[Pieces, ...], ...]
    words: int = 1
    caption: str = ""


def terminal(grid: Grid) -> Table:
    """The table for a terminal; a cell's pieces stand below each other."""
    title = Text(grid.title, style="bold") if grid.title else None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(grid.head):
        text = index < grid.words
        longest = max((len(piece) for row in grid.rows for piece in row[index]), default=0)
        # Names stay whole up to a width; where it is narrow, the numbers of many models break first.
        table.add_column(
            formats.plain(name),
            justify="left" if text else "right",
            min_width=min(longest, LONGEST) if text else None,
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*(Text("\n".join(pieces)) for pieces in row))
    return table


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, its title above and its caption below."""
    rules = ["---" if index < grid.words else "---:" for index in range(len(grid.head))]
    lines = [list(map(escaped, grid.head)), rules]
    lines += [[escaped(" ".join(pieces)) for pieces in row] for row in grid.rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    title = f"**{escaped(grid.title)}**\n\n" if grid.title else ""
    return title + table + (f"\n{escaped(grid.caption)}\n" if grid.caption else "")


def html(grid: Grid) -> str:
    """The table as HTML, its title and caption in front; the first cell of a row is its heading."""
    title = f"<strong>{escape(grid.title)}.</strong> " if grid.title else ""
    caption = f"<caption><span>{title}{escape(grid.caption)}</span></caption>\n" if title or grid.caption else ""
    head = "".join(f'<th scope="col"{_class(grid, index)}>{escape(name)}</th>' for index, name in enumerate(grid.head))
    body = ""
    for row in grid.rows:
        first = f'<th scope="row">{escape(" ".join(row[0]))}</th>'
        cells = "".join(
            f"<td{_class(grid, index)}>{' '.join(f'<span>{escape(piece)}</span>' for piece in pieces)}</td>"
            for index, pieces in enumerate(row[1:], start=1)
        )
        body += f"<tr>{first}{cells}</tr>\n"
    return f'<table class="results">\n{caption}<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>\n'


def _class(grid: Grid, index: int) -> str:
    return "" if index < grid.words else ' class="number"'
