"""The page of a comparison, `report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

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
from mixln.report.page.skeleton import closed, closed_pairs, flat, page, scroll, section, subheading, verdict, warnings
from mixln.report.tables import comparison as tables
from mixln.report.tables.comparison import ComparisonColumn
from mixln.report.tables.grid import spans
from mixln.report.wording import comparison, facts, pages
from mixln.report.wording import tables as words
from mixln.report.wording import warnings as warned
from mixln.report.wording.comparison_charts import errors as errors_caption
from mixln.report.wording.phrases import Pieces
from mixln.runs.trials import TrialResult

EMPTY = Markup()
LEFT = (words.PLACEMENT, words.INIT, "status")
"""Left-aligned columns of the table of trials."""


def render(summary: Summary) -> Markup:
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


def _results(summary: Summary) -> Markup:
    columns = tables.columns(summary)
    body = Markup().join(_result_row(columns, row) for row in tables.rows(summary, columns))
    table = Markup(
        '<table class="results">\n<caption><span>{}</span></caption>\n<thead>\n{}</thead>\n<tbody>\n{}</tbody>\n</table>\n'
    ).format(tables.caption(summary), _result_head(summary, columns), body)
    return scroll(pages.RESULTS_LABEL, table)


def _result_head(summary: Summary, columns: Sequence[ComparisonColumn]) -> Markup:
    """One row of headings, or two if there are groups of columns."""
    if not any(column.group for column in columns):
        row = Markup().join(_heading(column, column.heading.full) for column in columns)
        return Markup("<tr>{}</tr>\n").format(row)
    first = second = Markup()
    for _, run in groupby(columns, key=lambda column: column.group):
        members = list(run)
        title = tables.group_title(summary, members[0].group)
        if not title:
            tall = Markup(' rowspan="2"')
            first += Markup().join(_heading(column, column.heading.full, tall) for column in members)
        else:
            first += Markup('<th scope="colgroup" colspan="{}">{}</th>').format(len(members), title)
            second += Markup().join(_heading(column, column.heading.sub) for column in members)
    return Markup("<tr>{}</tr>\n<tr>{}</tr>\n").format(first, second)


def _heading(column: ComparisonColumn, text: str, more: Markup = EMPTY) -> Markup:
    return Markup('<th scope="col"{}{}>{}</th>').format(_number(column), more, text)


def _result_row(columns: Sequence[ComparisonColumn], row: Sequence[Pieces]) -> Markup:
    cells = Markup()
    for column, pieces in zip(columns, row, strict=True):
        if column.kind == "name":
            codes = Markup().join(map(Markup(" <code>{}</code>").format, pieces[1:]))
            cells += Markup('<th scope="row">{}{}</th>').format(pieces[0], codes)
        else:
            cells += Markup("<td{}>{}</td>").format(_number(column), spans(pieces))
    return Markup("<tr>{}</tr>\n").format(cells)


def _number(column: ComparisonColumn) -> Markup:
    return Markup(' class="number"') if column.kind == "number" else EMPTY


def _errors(summary: Summary) -> Markup:
    """The most confident errors of image classifiers; empty if there are none."""
    groups = errors(summary)
    if not groups:
        return EMPTY
    body = Markup().join(
        subheading(name) + Markup('<ul class="pictures">\n{}</ul>\n').format(Markup().join(map(_error, mistakes)))
        for name, mistakes in groups
    )
    return section(pages.ERRORS, Markup("<p>{}</p>\n").format(errors_caption()), body)


def _error(mistake: Misclassification) -> Markup:
    label, predicted = plain(mistake.label), plain(mistake.predicted)
    return Markup(
        '<li><img alt="{}" src="data:image/png;base64,{}"><span>{}</span><span>→ {}, {:.0%}</span></li>\n'
    ).format(pages.taken_for(label, predicted), mistake.image, label, predicted, mistake.confidence)


def _details(summary: Summary) -> Iterator[Markup]:
    trials = [_trial(summary, result) for result in summary.trials]
    names = tuple(trials[0]) if trials else ()
    head = Markup().join(map(Markup('<th scope="col"{}>{}</th>').format, map(_class, names), names))
    table = Markup('<table class="trials">\n<thead>\n<tr>{}</tr>\n</thead>\n<tbody>\n{}</tbody>\n</table>\n').format(
        head, Markup().join(map(_trial_row, trials))
    )
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


def _trial_row(columns: dict[str, str]) -> Markup:
    (_, first), *others = columns.items()
    cells = Markup().join(Markup("<td{}>{}</td>").format(_class(name), value) for name, value in others)
    return Markup('<tr><th scope="row">{}</th>{}</tr>\n').format(first, cells)


def _class(name: str) -> Markup:
    if name in LEFT:
        return EMPTY
    return Markup(' class="wide"') if name == "reason" else Markup(' class="number"')
