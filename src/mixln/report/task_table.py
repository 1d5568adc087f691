"""The tables of an evaluation: a row for each metric of each task, a column for each model."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from mixln.evaluation.results import Evaluation, Metric, Pair
from mixln.report import formats
from mixln.report.grid import Grid, markdown, terminal
from mixln.report.tables import Pieces, escaped

SHARES = ("acc", "acc_norm", "exact_match", "em", "f1")
"""Metrics that are written in percent."""


def scores(evaluation: Evaluation) -> Grid:
    """A value with its standard error for each model."""
    found = []
    for task, metric in _metrics(evaluation):
        known = [score.metric(metric.name) if (score := model.score(task)) else None for model in evaluation.models]
        chance = formats.NOTHING if metric.chance is None else _number(metric.name, metric.chance)
        found.append(tuple((text,) for text in (task, metric.name, chance, *map(_value, known))))
    head = ("task", "metric", "guessing", *(model.model for model in evaluation.models))
    return Grid(head=head, rows=tuple(found), words=2)


def differences(evaluation: Evaluation) -> Grid:
    """The difference of each later model from the first, with its 95% interval and p; only metrics that have one."""
    later = evaluation.models[1:]
    by_place = {(pair.model, pair.task, pair.metric): pair for pair in evaluation.pairs}
    found = []
    for task, metric in _metrics(evaluation):
        pairs = [by_place.get((model.model, task, metric.name)) for model in later]
        if any(pairs):
            found.append(((task,), (metric.name,), *map(_difference, pairs)))
    head = ("task", "metric", *(f"{model.model} − {evaluation.models[0].model}" for model in later))
    return Grid(head=head, rows=tuple(found), words=2)


def terminal_evaluation(evaluation: Evaluation) -> RenderableType:
    """The tables for a terminal of 80 columns and more."""
    parts: list[RenderableType] = [terminal(scores(evaluation))]
    if evaluation.pairs:
        parts += ["", terminal(differences(evaluation))]
    return Group(*parts, "", Text(caption(evaluation), style="dim"))


def markdown_evaluation(evaluation: Evaluation) -> str:
    """The tables in GitHub's Markdown, with what a reader must know below."""
    tables = [markdown(scores(evaluation))]
    if evaluation.pairs:
        tables.append(markdown(differences(evaluation)))
    notes = "".join(f"- {escaped(note)}\n" for note in evaluation.notes)
    return "\n".join([*tables, f"{caption(evaluation)}\n", *([notes] if notes else [])])


def caption(evaluation: Evaluation) -> str:
    """What the columns mean, of those that there are."""
    metrics = [metric for _, metric in _metrics(evaluation)]
    parts = ["Accuracies in percent."] if any(metric.name in SHARES for metric in metrics) else []
    if any(metric.stderr is not None for metric in metrics):
        parts.append("±: the standard error of lm-eval.")
    if any(metric.chance is not None for metric in metrics):
        parts.append("Guessing: what a random choice gives.")
    if evaluation.pairs:
        parts.append(
            "Differences: on the same questions, accuracies in points; 95% interval and p by McNemar's exact test where answers are "
            "right or wrong, else by Student's t."
        )
    return " ".join(parts)


def _value(metric: Metric | None) -> str:
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
        low, high, middle = (formats.points(100 * value) for value in (pair.low, pair.high, pair.difference))
    else:
        low, high, middle = (formats.signed(value) for value in (pair.low, pair.high, pair.difference))
    return middle, f"[{low}, {high}],", formats.p_value(pair.p)


def _metrics(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    for score in evaluation.models[0].scores:
        for metric in score.metrics:
            yield score.task, metric
