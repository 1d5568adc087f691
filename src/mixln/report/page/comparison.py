"""The page of a comparison, `report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from mixln import formats
from mixln.compare.results import Misclassification, Summary
from mixln.compare.tasks import TASKS
from mixln.report.figures.classifier_errors import errors
from mixln.report.figures.comparison import prepare
from mixln.report.figures.diagnosis import of_summary
from mixln.report.names import plain
from mixln.report.page.chain import chain_section
from mixln.report.page.diagnosis import layers_section
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed, closed_pairs, flat, page, scroll, section, verdict, warnings
from mixln.report.tables import comparison as tables
from mixln.report.tables.comparison import ComparisonColumn
from mixln.report.wording import comparison, facts, pages
from mixln.report.wording import tables as words
from mixln.report.wording import warnings as warned
from mixln.report.wording.comparison_charts import errors as errors_caption
from mixln.report.wording.phrases import Pieces
from mixln.runs.trials import TrialResult

LEFT = (words.PLACEMENT, words.INIT, "status")
"""Left-aligned columns of the table of trials."""


def render(summary: Summary) -> str:
    """The page as HTML.

    :returns: about 5 MB, most of it plotly.js.
    """
    trained, diagnosed = prepare(summary), of_summary(summary)
    return page(
        pages.comparison(plain(row.title) for row in summary.placements),
        body=(
            verdict({"": comparison.verdict(summary)}),
            warnings(warned.sentences(summary.warnings)),
            section(pages.RESULTS, _results(summary)),
            section(pages.FIGURES, *map(figure, trained)),
            _errors(summary),
            chain_section(summary),
            layers_section(summary.diagnoses, diagnosed),
            section(pages.DETAILS, *_details(summary)),
        ),
        charts=(*trained, *diagnosed),
    )


def _results(summary: Summary) -> str:
    columns = tables.columns(summary)
    body = "".join(_result_row(columns, row) for row in tables.rows(summary, columns))
    caption = f"<caption><span>{escape(tables.caption(summary))}</span></caption>\n"
    head = f"<thead>\n{_result_head(summary, columns)}</thead>\n"
    return scroll(pages.RESULTS_LABEL, f'<table class="results">\n{caption}{head}<tbody>\n{body}</tbody>\n</table>\n')


def _result_head(summary: Summary, columns: Sequence[ComparisonColumn]) -> str:
    """One row of headings, or two if there are groups of columns."""
    if not any(column.group for column in columns):
        return "<tr>" + "".join(_heading(column, column.heading.full) for column in columns) + "</tr>\n"
    first = second = ""
    for _, run in groupby(columns, key=lambda column: column.group):
        members = list(run)
        title = tables.group_title(summary, members[0].group)
        if not title:
            first += "".join(_heading(column, column.heading.full, ' rowspan="2"') for column in members)
        else:
            first += f'<th scope="colgroup" colspan="{len(members)}">{escape(title)}</th>'
            second += "".join(_heading(column, column.heading.sub) for column in members)
    return f"<tr>{first}</tr>\n<tr>{second}</tr>\n"


def _heading(column: ComparisonColumn, text: str, more: str = "") -> str:
    number = ' class="number"' if column.kind == "number" else ""
    return f'<th scope="col"{number}{more}>{escape(text)}</th>'


def _result_row(columns: Sequence[ComparisonColumn], row: Sequence[Pieces]) -> str:
    cells = ""
    for column, pieces in zip(columns, row, strict=True):
        if column.kind == "name":
            codes = "".join(f" <code>{escape(piece)}</code>" for piece in pieces[1:])
            cells += f'<th scope="row">{escape(pieces[0])}{codes}</th>'
        else:
            number = ' class="number"' if column.kind == "number" else ""
            cells += f"<td{number}>{' '.join(f'<span>{escape(piece)}</span>' for piece in pieces)}</td>"
    return f"<tr>{cells}</tr>\n"


def _errors(summary: Summary) -> str:
    """The most confident errors of image classifiers; empty if there are none."""
    groups = errors(summary)
    if not groups:
        return ""
    body = "".join(
        f'<h3>{escape(name)}</h3>\n<ul class="pictures">\n{"".join(map(_error, mistakes))}</ul>\n'
        for name, mistakes in groups
    )
    return section(pages.ERRORS, f"<p>{escape(errors_caption())}</p>\n", body)


def _error(mistake: Misclassification) -> str:
    label, predicted = plain(mistake.label), plain(mistake.predicted)
    return (
        f'<li><img alt="{escape(pages.taken_for(label, predicted))}" src="data:image/png;base64,{escape(mistake.image)}">'
        f"<span>{escape(label)}</span><span>→ {escape(predicted)}, {mistake.confidence:.0%}</span></li>\n"
    )


def _details(summary: Summary) -> Iterator[str]:
    trials = [_trial(summary, result) for result in summary.trials]
    rows = "".join(map(_trial_row, trials))
    head = "".join(f'<th scope="col"{_class(name)}>{name}</th>' for name in trials[0]) if trials else ""
    table = f'<table class="trials">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n'
    yield closed(pages.every_trial(len(trials)), scroll(pages.EVERY_TRIAL, table))
    yield closed_pairs(pages.SETTINGS, flat(summary.settings))
    yield closed_pairs(pages.PROVENANCE_AND_DATA, facts.comparison(summary))


def _trial(summary: Summary, result: TrialResult) -> dict[str, str]:
    """The row of one trial: heading → cell."""
    metrics, trial, first = TASKS[summary.task].metrics, result.trial, result.first_step_seconds
    before = (
        trial.placement,
        trial.init,
        formats.learning_rate(trial.learning_rate),
        str(trial.seed),
        result.status,
        result.reason,
        f"{result.step:,}",
    )
    after = (
        formats.seconds(result.seconds),
        formats.NOTHING if first is None else formats.seconds(first),
        {True: "yes", False: "no", None: formats.NOTHING}[result.compiled],
    )
    measured = {metric.name: metric.say(result) for metric in (metrics.ranking, *metrics.beside)}
    return {
        **dict(zip(words.TRIAL_COLUMNS, before, strict=False)),
        **measured,
        **dict(zip(words.TRIAL_COLUMNS[len(before) :], after, strict=True)),
    }


def _trial_row(columns: dict[str, str]) -> str:
    (_, first), *others = columns.items()
    cells = "".join(f"<td{_class(name)}>{escape(value)}</td>" for name, value in others)
    return f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>\n'


def _class(name: str) -> str:
    if name in LEFT:
        return ""
    return ' class="wide"' if name == "reason" else ' class="number"'
