"""The page of a comparison, `report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from mixln.compare.results import Summary
from mixln.report import formats, tables
from mixln.report.chain_tables import chain_section
from mixln.report.charts import prepare
from mixln.report.diagnosis import of_summary
from mixln.report.diagnosis_page import findings
from mixln.report.embedded import figure
from mixln.report.pictures import mistakes_section
from mixln.report.skeleton import closed, closed_pairs, flat, page, scroll, section, verdict, warnings
from mixln.report.tables import Column, Pieces
from mixln.runs.trials import TrialResult

WORDS = ("placement", "init", "status")
"""Columns of the table of trials that are set to the left."""


def render(summary: Summary) -> str:
    """The page as HTML.

    :returns: about 5 MB, nearly all of it plotly.js.
    """
    names = ", ".join(formats.plain(row.title) for row in summary.placements)
    trained, diagnosed = prepare(summary), of_summary(summary)
    return page(
        title=f"mixln compare: {names}",
        heading=f"Comparison of normalization placements: {names}",
        body=(
            verdict({"": summary.verdict}),
            warnings(summary.warnings),
            section("Results", _results(summary)),
            section("Figures", *map(figure, trained)),
            mistakes_section(summary),
            chain_section(summary),
            findings(summary.diagnoses, diagnosed),
            section("Details", *_details(summary)),
        ),
        footer="Written by <code>mixln compare</code>. The same numbers are in <code>results.json</code>, the table in\n"
        "<code>table.md</code>, and the figures as PNG files beside this page.",
        charts=(*trained, *diagnosed),
    )


def _results(summary: Summary) -> str:
    columns = tables.columns(summary)
    body = "".join(_result_row(columns, row) for row in tables.rows(summary, columns))
    caption = f"<caption><span>{escape(tables.caption(summary))}</span></caption>\n"
    head = f"<thead>\n{_result_head(summary, columns)}</thead>\n"
    return scroll(
        "Results by placement", f'<table class="results">\n{caption}{head}<tbody>\n{body}</tbody>\n</table>\n'
    )


def _result_head(summary: Summary, columns: Sequence[Column]) -> str:
    """One row of headings, or two where columns stand in groups."""
    if not any(column.group for column in columns):
        return "<tr>" + "".join(_heading(column, column.heading) for column in columns) + "</tr>\n"
    first = second = ""
    for _, run in groupby(columns, key=lambda column: column.group):
        members = list(run)
        title = tables.group_title(summary, members[0].group)
        if not title:
            first += "".join(_heading(column, column.heading, ' rowspan="2"') for column in members)
        else:
            first += f'<th scope="colgroup" colspan="{len(members)}">{escape(title)}</th>'
            second += "".join(_heading(column, column.sub) for column in members)
    return f"<tr>{first}</tr>\n<tr>{second}</tr>\n"


def _heading(column: Column, text: str, more: str = "") -> str:
    number = ' class="number"' if column.kind == "number" else ""
    return f'<th scope="col"{number}{more}>{escape(text)}</th>'


def _result_row(columns: Sequence[Column], row: Sequence[Pieces]) -> str:
    cells = ""
    for column, pieces in zip(columns, row, strict=True):
        if column.kind == "name":
            codes = "".join(f" <code>{escape(piece)}</code>" for piece in pieces[1:])
            cells += f'<th scope="row">{escape(pieces[0])}{codes}</th>'
        else:
            number = ' class="number"' if column.kind == "number" else ""
            cells += f"<td{number}>{' '.join(f'<span>{escape(piece)}</span>' for piece in pieces)}</td>"
    return f"<tr>{cells}</tr>\n"


def _details(summary: Summary) -> Iterator[str]:
    columns = [_trial(summary, result) for result in summary.trials]
    rows = "".join(map(_trial_row, columns))
    head = "".join(f'<th scope="col"{_number(name)}>{name}</th>' for name in columns[0]) if columns else ""
    trials = f'<table class="trials">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n'
    yield closed(f"Every trial ({len(summary.trials)})", scroll("Every trial", trials))
    yield closed_pairs("Settings", flat(summary.settings))
    yield closed_pairs("Versions, machine and data", summary.facts.items())


def _trial(summary: Summary, result: TrialResult) -> dict[str, str]:
    """What the table of trials says of one, by the heading of its column."""
    measure, trial, first = tables.measure_of(summary), result.trial, result.first_step_seconds
    return {
        "placement": trial.placement,
        "init": trial.init,
        "learning rate": formats.learning_rate(trial.learning_rate),
        "seed": str(trial.seed),
        "status": result.status,
        "reason": result.reason,
        "step": f"{result.step:,}",
        measure.name: measure.say(result),
        **{figure.name: figure.say(result) for figure in measure.figures},
        "seconds": formats.seconds(result.seconds),
        "of them the first step": formats.NOTHING if first is None else formats.seconds(first),
        "layers compiled": {True: "yes", False: "no", None: formats.NOTHING}[result.compiled],
    }


def _trial_row(columns: dict[str, str]) -> str:
    (_, first), *others = columns.items()
    cells = "".join(f"<td{_number(name)}>{escape(value)}</td>" for name, value in others)
    return f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>\n'


def _number(name: str) -> str:
    if name in WORDS:
        return ""
    return ' class="wide"' if name == "reason" else ' class="number"'
