"""The figures of a comparison: loss curves, perplexity or accuracy, gradient norms and the residual stream, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from mixln import formats
from mixln.compare.metrics import Measured
from mixln.compare.results import PlacementSummary, Summary, alike
from mixln.compare.tasks import TASKS
from mixln.metrics import Metric
from mixln.report import names as naming
from mixln.report.figures import axes, series
from mixln.report.figures.calibration import calibration
from mixln.report.figures.series import Chart, Panel, Points, Reference, Trace
from mixln.report.wording import charts as words
from mixln.report.wording import comparison_charts as texts
from mixln.report.wording.nouns import nouns
from mixln.report.wording.phrases import TUNED, divergence, mean
from mixln.runs.profile import LayerProfile
from mixln.runs.trials import TrialResult


def prepare(summary: Summary) -> tuple[Chart, ...]:
    """All figures, in display order."""
    return (loss(summary), ranking(summary), *calibration(summary), gradients(summary), residual(summary))


def loss(summary: Summary) -> Chart:
    """Training and held-out loss against steps: each placement at its best learning rate, then every learning rate."""
    best = [series.trials_at(summary, row, row.best.learning_rate) for row in summary.placements]
    rates = summary.learning_rates
    groups = [("" if len(rates) == 1 else TUNED, best)]
    for rate in rates if len(rates) > 1 else ():
        trials = [series.trials_at(summary, row, rate) for row in summary.placements]
        groups.append((words.at_rate(rate), trials))
    names = naming.placements(summary)
    x, y = _loss_axes(summary)
    reference = Reference(value=summary.floor.loss, label=nouns(summary.task).floor, along="y")
    panels = tuple(
        Panel(title=title, x=x, y=y, traces=_loss_traces(names, trials, y), reference=reference)
        for title, trials in groups
    )
    ends = ((name, formats.number(row.best.loss, 4), row.best.stalled_beside) for name, row in _named(summary))
    floor = formats.number(summary.floor.loss, 4)
    return Chart(
        name="loss",
        text=texts.loss(summary.task, ends, floor, diverged=_diverged(summary)),
        keys=names,
        panels=panels if any(panel.traces for panel in panels) else (),
        across=min(2, len(panels)),
    )


def ranking(summary: Summary) -> Chart:
    """Perplexity or accuracy at the end of training: by placement, and by learning rate if there are several."""
    metric, names = TASKS[summary.task].metrics.ranking, naming.placements(summary)
    several = len(summary.learning_rates) > 1
    panels = [_by_placement(summary, names, TUNED if several else "")]
    if several:
        panels.append(_by_learning_rate(summary, names))
    ends = ((name, metric.say(row.best), row.best.stalled_beside) for name, row in _named(summary))
    return Chart(
        name=metric.name.replace(" ", "-"),  # also a file name
        text=texts.ranking(summary.task, ends, metric.say(summary.floor), diverged=_diverged(summary)),
        keys=names,
        panels=tuple(panels),
        across=len(panels),
    )


def gradients(summary: Summary) -> Chart:
    """The gradient norm of each layer at the start and at the end of training, attention and feed-forward apart."""
    panels = _profile_panels(
        summary,
        lambda result: result.gradient_norms,
        (
            (words.ATTENTION, lambda profile: profile.attention),
            (words.FEED_FORWARD, lambda profile: profile.feed_forward),
        ),
        words.GRADIENT_NORM,
    )
    return Chart(name="gradients", text=texts.gradients(), keys=naming.placements(summary), panels=panels, across=2)


def residual(summary: Summary) -> Chart:
    """The variance of the residual stream by depth, at the start and at the end of training."""

    def interleaved(profile: LayerProfile) -> tuple[float, ...]:
        return tuple(value for pair in zip(profile.attention, profile.feed_forward, strict=False) for value in pair)

    panels = _profile_panels(
        summary, lambda result: result.residual_variance, (("", interleaved),), texts.VARIANCE, halves=True
    )
    return Chart(name="residual", text=texts.residual(), keys=naming.placements(summary), panels=panels, across=2)


def _named(summary: Summary) -> Iterable[tuple[str, PlacementSummary]]:
    return zip(naming.placements(summary), summary.placements, strict=True)


def _diverged(summary: Summary) -> bool:
    return any(result.status == "diverged" for result in summary.trials)


def _floor(summary: Summary, along: Literal["x", "y"]) -> Reference:
    metric = TASKS[summary.task].metrics.ranking
    value = metric.number(summary.floor)
    assert value is not None
    return Reference(value=value, label=f"{nouns(summary.task).floor} {metric.text(value)}", along=along)


def _ended(name: str, result: TrialResult) -> str:
    return words.diverged(name, result.trial.seed, result.step)


def _seed(name: str, result: TrialResult) -> str:
    return words.seed(name, result.trial.seed)


def _loss_axes(summary: Summary) -> tuple[axes.Axis, axes.Axis]:
    """The axes of all panels. Curves of diverged trials may leave the range at the top, unless there are no others."""
    steps = [0.0, *(float(result.step) for result in summary.trials)]
    sound = [result for result in summary.trials if result.status != "diverged"]
    curves = [
        curve for result in sound for curve in (series.finite(result.train_curve), series.finite(result.eval_curve))
    ]
    if not any(curves):
        curves = [series.finite(result.train_curve)[:1] for result in summary.trials]
    values = [summary.floor.loss, *(y for curve in curves for _, y in curve)]
    x = axes.linear(words.STEPS, steps, pad=0.02)
    return replace(x, low=min(0.0, x.low)), axes.linear(texts.loss_axis(summary.task), values)


def _loss_traces(names: Sequence[str], trials: Sequence[tuple[TrialResult, ...]], y: axes.Axis) -> tuple[Trace, ...]:
    faint: list[Trace] = []
    thin: list[Trace] = []
    strong: list[Trace] = []
    for key, (name, results) in enumerate(zip(names, trials, strict=True)):
        curves = [series.finite(result.eval_curve) for result in results]
        mixed = len(alike(results)) < sum(result.status in ("finished", "stalled") for result in results)
        if not mixed:
            average = series.mean_curve([_training(r) for r in results])
            faint.append(_trace(key, "training", texts.training(name), average))
        for result, curve in zip(results, curves, strict=True):
            if result.status == "diverged":
                strong.append(_trace(key, "ended", _ended(name, result), (_end(result, y),)))
            if mixed:  # a mean of stalled and trained seeds is near none of them
                faint.append(_trace(key, "training", texts.training(_seed(name, result)), _training(result)))
                strong.append(_trace(key, "mean", texts.ended(_seed(name, result), result.status), curve))
            elif len(results) > 1:
                if result.status == "diverged":  # the mean ends with the first curve that ends
                    faint.append(_trace(key, "training", texts.training(_seed(name, result)), _training(result)))
                thin.append(_trace(key, "seed", _seed(name, result), curve))
        if not mixed:
            strong.append(_trace(key, "mean", texts.held_out(name), series.mean_curve(curves)))
    return tuple(trace for trace in (*faint, *thin, *strong) if trace.points)


def _training(result: TrialResult) -> Points:
    return series.finite(result.train_curve)


def _end(result: TrialResult, y: axes.Axis) -> tuple[float, float]:
    """The position of the cross of a diverged trial: its last loss, or the upper edge without one."""
    last = max((*_training(result), *series.finite(result.eval_curve)), default=None)
    return float(result.step), y.inside(last[1] if last else None)


def _settled(metric: Metric[Measured], result: TrialResult) -> float | None:
    """The metric of a trial that did not diverge, if it is finite."""
    value = metric.number(result)
    return value if value is not None and math.isfinite(value) and result.status != "diverged" else None


def _scale(summary: Summary) -> axes.Axis:
    """From the best seed to the worst that did not diverge; includes the trivial model only if a trial is near it."""
    metric = TASKS[summary.task].metrics.ranking
    values = [value for result in summary.trials if (value := _settled(metric, result)) is not None]
    values += [v for row in summary.placements if (v := metric.number(row.best)) is not None and math.isfinite(v)]
    floor = metric.number(summary.floor)
    assert floor is not None
    if not values or (max(values) > 0.6 * floor if metric.lower_is_better else min(values) < floor / 0.6):
        values.append(floor)
    return (axes.logarithmic if metric.logarithmic else axes.linear)(texts.ranking_axis(summary.task), values)


def _edge(metric: Metric[Measured], scale: axes.Axis, result: TrialResult) -> float:
    """The position of the cross of a diverged trial: its metric, or the worse end of the scale without one."""
    value = metric.number(result)
    return scale.inside(-math.inf if value is None and not metric.lower_is_better else value)


def _by_placement(summary: Summary, names: Sequence[str], title: str) -> Panel:
    """A row for each placement: the mean with its value, and the seeds below it, or in its place if some stalled."""
    metric, scale = TASKS[summary.task].metrics.ranking, _scale(summary)
    traces: list[Trace] = []
    for key, (name, row) in enumerate(zip(names, summary.placements, strict=True)):
        results = series.trials_at(summary, row, row.best.learning_rate)
        below = -key - 0.25
        mixed = row.best.mixed
        for result in results if len(results) > 1 else ():
            value = _settled(metric, result)
            if value is not None:
                role, at = ("center", -key) if mixed else ("dot", below)
                traces.append(_trace(key, role, _seed(name, result), ((value, at),)))
        middle = metric.number(row.best)
        if middle is not None and math.isfinite(middle):
            if not mixed:
                traces.append(_trace(key, "center", words.mean(name), ((middle, -key),)))
            side = "note" if scale.share(middle) > 0.6 else "value"
            traces.append(_trace(key, side, mean(metric, row.best), ((middle, -key),)))
        diverged = [result for result in results if result.status == "diverged"]
        ends = [(_edge(metric, scale, result), below) for result in diverged]
        traces += [
            _trace(key, "ended", _ended(name, result), (end,)) for result, end in zip(diverged, ends, strict=True)
        ]
        if ends:
            note = divergence(len(diverged), [result.step for result in diverged])
            traces.append(_trace(key, "note", note, (min(ends),)))
    ticks = tuple((float(-key), name) for key, name in enumerate(names))
    return Panel(
        title=title,
        x=scale,
        y=axes.Axis(label="", low=0.3 - len(names), high=0.5, ticks=ticks),
        traces=tuple(traces),
        reference=_floor(summary, "x"),
    )


def _by_learning_rate(summary: Summary, names: Sequence[str]) -> Panel:
    """The mean against the learning rate. Crosses of different placements are shifted, since they would coincide."""
    metric, scale, rates = TASKS[summary.task].metrics.ranking, _scale(summary), summary.learning_rates
    traces: list[Trace] = []
    for key, (name, row) in enumerate(zip(names, summary.placements, strict=True)):
        points = [(cell.learning_rate, v, cell.mixed) for cell in row.cells if (v := metric.number(cell)) is not None]
        # Where some seeds trained and others stalled, a mean is meaningless: the line has a gap, and only dots are drawn.
        line = tuple((rate, math.nan if mixed else value) for rate, value, mixed in points if math.isfinite(value))
        for cell in row.cells:
            shifted = cell.learning_rate * (rates[-1] / rates[0]) ** (0.025 * (key - (len(names) - 1) / 2))
            for result in series.trials_at(summary, row, cell.learning_rate):
                value = _settled(metric, result)
                if result.status == "diverged":
                    traces.append(
                        _trace(key, "ended", _ended(name, result), ((shifted, _edge(metric, scale, result)),))
                    )
                elif value is not None:
                    traces.append(_trace(key, "dot", _seed(name, result), ((cell.learning_rate, value),)))
        traces.append(_trace(key, "mean", words.mean(name), line))
    x = replace(axes.logarithmic(words.LEARNING_RATE, rates), ticks=tuple((r, formats.learning_rate(r)) for r in rates))
    return Panel(
        title=texts.BY_RATE,
        x=x,
        y=scale,
        traces=tuple(trace for trace in traces if trace.points),
        reference=_floor(summary, "y"),
    )


def _profile_panels(
    summary: Summary,
    profiles_of: Callable[[TrialResult], tuple[LayerProfile, ...]],
    parts: Sequence[tuple[str, Callable[[LayerProfile], tuple[float, ...]]]],
    label: str,
    halves: bool = False,
) -> tuple[Panel, ...]:
    """A row of panels for each part, start on the left and end on the right, all with the same axes."""
    names = naming.placements(summary)
    trials = [series.trials_at(summary, row, row.best.learning_rate) for row in summary.placements]
    chosen = [[profiles_of(result) for result in alike(results)] for results in trials]
    times = (
        (texts.START, [series.first_profiles(group) for group in chosen]),
        (texts.END, [series.last_profiles(group) for group in chosen]),
    )
    drawn: list[tuple[str, tuple[Trace, ...]]] = []
    depth = 0
    for part, values_of in parts:
        for time, groups in times:
            means = [series.mean_profile([values_of(profile) for profile in group]) for group in groups]
            traces = tuple(
                _trace(key, "mean", name, tuple((1 + i / (2 if halves else 1), y) for i, y in enumerate(mean)))
                for key, (name, mean) in enumerate(zip(names, means, strict=True))
                if mean
            )
            depth = max([depth, *(len(mean) // (2 if halves else 1) for mean in means)])
            drawn.append((texts.profile(part, time, _steps(groups)), traces))
    if not any(traces for _, traces in drawn):
        return ()
    x = axes.layers(depth, halves=halves)
    y = axes.logarithmic(label, [value for _, traces in drawn for trace in traces for value in trace.y])
    return tuple(Panel(title=title, x=x, y=y, traces=traces) for title, traces in drawn)


def _steps(groups: Sequence[Sequence[LayerProfile]]) -> list[int]:
    return [profile.step for group in groups for profile in group]


def _trace(key: int, role: series.Role, label: str, points: Points) -> Trace:
    return Trace(key=key, role=role, label=label, points=points)
