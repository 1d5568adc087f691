"""The tables of an evaluation: a row for each metric of each task, a column for each model."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from mixln import formats
from mixln.evaluation.results import Evaluation, Pair, TaskMetric
from mixln.report.tables.grid import TableGrid, escaped, markdown, terminal
from mixln.report.wording import evaluation as wording
from mixln.report.wording import tables as words
from mixln.report.wording.phrases import Pieces

SHARES = ("acc", "acc_norm", "exact_match", "em", "f1")
"""Metrics that are fractions, shown in percent."""


def scores(evaluation: Evaluation) -> TableGrid:
    """Values with their standard errors, a column for each model."""
    rows = []
    for task, metric in _metrics(evaluation):
        known = [score.metric(metric.name) if (score := model.score(task)) else None for model in evaluation.models]
        chance = formats.NOTHING if metric.chance is None else _number(metric.name, metric.chance)
        rows.append(tuple((text,) for text in (task, metric.name, chance, *map(_value, known))))
    head = (words.TASK, words.METRIC, words.CHANCE, *(model.model for model in evaluation.models))
    return TableGrid(head=head, rows=tuple(rows), words=2)


def differences(evaluation: Evaluation) -> TableGrid:
    """The difference of each later model from the first, with its 95% interval and p; only metrics with a difference."""
    later = evaluation.models[1:]
    by_place = {(pair.model, pair.task, pair.metric): pair for pair in evaluation.pairs}
    rows = []
    for task, metric in _metrics(evaluation):
        pairs = [by_place.get((model.model, task, metric.name)) for model in later]
        if any(pairs):
            rows.append(((task,), (metric.name,), *map(_difference, pairs)))
    head = (words.TASK, words.METRIC, *words.pairs((model.model for model in later), evaluation.models[0].model))
    return TableGrid(head=head, rows=tuple(rows), words=2)


def terminal_evaluation(evaluation: Evaluation) -> RenderableType:
    """The tables for a terminal of at least 80 columns."""
    parts: list[RenderableType] = [terminal(scores(evaluation))]
    if evaluation.pairs:
        parts += ["", terminal(differences(evaluation))]
    return Group(*parts, "", Text(caption(evaluation), style="dim"))


def markdown_evaluation(evaluation: Evaluation) -> str:
    """The tables in GitHub's Markdown, followed by caveats."""
    tables = [markdown(scores(evaluation))]
    if evaluation.pairs:
        tables.append(markdown(differences(evaluation)))
    notes = "".join(f"- {escaped(note)}\n" for note in wording.notes(evaluation))
    return "\n".join([*tables, f"{caption(evaluation)}\n", *([notes] if notes else [])])


def caption(evaluation: Evaluation) -> str:
    """The caption that explains the columns."""
    metrics = [metric for _, metric in _metrics(evaluation)]
    return words.scores(
        shares=any(metric.name in SHARES for metric in metrics),
        errors=any(metric.stderr is not None for metric in metrics),
        chance=any(metric.chance is not None for metric in metrics),
        pairs=bool(evaluation.pairs),
    )


def _value(metric: TaskMetric | None) -> str:
    if metric is None:
        return formats.NOTHING
    error = f" ±{_number(metric.name, metric.stderr)}" if metric.stderr is not None else ""
    return f"{_number(metric.name, metric.value)}{error}"


def _number(name: str, value: float) -> str:
    return f"{100 * value:.2f}" if name in SHARES else formats.number(value, 4)


def _difference(pair: Pair | None) -> Pieces:
    if pair is None:
        return (formats.NOTHING,)
    if pair.metric in SHARES:
        low, high, middle = (formats.points(value) for value in (pair.low, pair.high, pair.difference))
    else:
        low, high, middle = (formats.signed(value) for value in (pair.low, pair.high, pair.difference))
    return middle, f"[{low}, {high}],", formats.p_value(pair.p)


def _metrics(evaluation: Evaluation) -> Iterator[tuple[str, TaskMetric]]:
    for score in evaluation.models[0].scores:
        for metric in score.metrics:
            yield score.task, metric
