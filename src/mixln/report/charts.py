"""The figures of a comparison: loss curves, perplexity or accuracy, gradient norms and the residual stream, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from mixln.compare.measure import Measure
from mixln.compare.results import PlacementSummary, Summary, alike
from mixln.report import axes, formats, series
from mixln.report.pictures import calibration
from mixln.report.series import Chart, Panel, Points, Reference, Trace
from mixln.report.tables import learning_rates, measure_of
from mixln.runs.profile import LayerProfile
from mixln.runs.trials import TrialResult

_PROFILE = (
    "Mean over the seeds that trained (over all where none did), each placement at its best learning rate, "
    "at the start and at the end of training."
)


def prepare(summary: Summary) -> tuple[Chart, ...]:
    """All figures, in the order in which they are shown."""
    return (loss(summary), measured(summary), *calibration(summary), gradients(summary), residual(summary))


def loss(summary: Summary) -> Chart:
    """Training and held-out loss against steps: each placement at its best learning rate, then every learning rate."""
    best = [series.trials_at(summary, row, row.best.learning_rate) for row in summary.placements]
    rates = learning_rates(summary)
    groups = [("" if len(rates) == 1 else "each at its best learning rate", best)]
    for rate in rates if len(rates) > 1 else ():
        trials = [series.trials_at(summary, row, rate) for row in summary.placements]
        groups.append((f"learning rate {formats.learning_rate(rate)}", trials))
    names = series.labels(summary)
    x, y = _loss_axes(summary)
    measure = measure_of(summary)
    reference = Reference(value=summary.floor.loss, label=measure.floor, along="y")
    panels = tuple(
        Panel(title=title, x=x, y=y, traces=_loss_traces(names, trials, y), reference=reference)
        for title, trials in groups
    )
    ends = [
        f"{name} {'none' if row.best.loss is None else f'{row.best.loss:.3f}'}{row.best.beside}"
        for name, row in _named(summary)
    ]
    return Chart(
        name="loss",
        title="Loss during training",
        caption=(
            f"Loss in nats per {measure.extent} against optimizer steps; lower is better. Strong lines with markers: held-out "
            f"loss, mean over seeds as far as all of them went (single seeds where some trained and others stalled); "
            f"thin lines: single seeds; faint lines: training loss"
            f"{measure.training_loss}. A line that stays at the dashed one has learnt {measure.floor_learnt}."
            + _cross(summary)
        ),
        description=f"Line chart of the loss against steps. Held-out loss at the end, nats per {measure.extent}: "
        f"{'; '.join(ends)}; {measure.floor} {summary.floor.loss:.3f}.",
        keys=names,
        panels=panels if any(panel.traces for panel in panels) else (),
        across=min(2, len(panels)),
    )


def measured(summary: Summary) -> Chart:
    """Perplexity or accuracy at the end of training: by placement, and by learning rate if there are several."""
    measure, names = measure_of(summary), series.labels(summary)
    several = len(learning_rates(summary)) > 1
    panels = [_by_placement(summary, names, "each at its best learning rate" if several else "")]
    if several:
        panels.append(_by_learning_rate(summary, names))
    ends = [f"{name} {measure.say(row.best)}" for name, row in _named(summary)]
    return Chart(
        name=measure.name.replace(" ", "-"),  # also a file name
        title=f"{measure.name.capitalize()} at the end of training",
        caption=(
            f"{measure.name.capitalize()} ({measure.explained}) on the whole held-out set"
            f"{', on a logarithmic axis' if measure.logarithmic else ''}; {measure.direction} is better. "
            f"Large markers: mean over seeds{' (of the loss)' if measure.logarithmic else ''}, or single seeds where some "
            f"trained and others stalled; small dots: single seeds. "
            f"The {measure.floor} {measure.floor_knows}." + _cross(summary)
        ),
        description=f"Dot chart of the {measure.name} by placement: {'; '.join(ends)}; {measure.floor} "
        f"{measure.say(summary.floor)}.",
        keys=names,
        panels=tuple(panels),
        across=len(panels),
    )


def gradients(summary: Summary) -> Chart:
    """The gradient norm of each layer at the start and at the end of training, attention and feed-forward apart."""
    panels = _profile_panels(
        summary,
        lambda result: result.gradient_norms,
        (("attention", lambda profile: profile.attention), ("feed-forward", lambda profile: profile.feed_forward)),
        "gradient norm (L2)",
    )
    return Chart(
        name="gradients",
        title="Gradient norm by layer",
        caption=(
            "L2 norm of the gradient of the attention's and of the feed-forward's weights in each layer, before clipping, on "
            f"a logarithmic axis. {_PROFILE} Where a line is level, all layers learn alike; where it dips, those layers "
            "hardly learn."
        ),
        description="Line charts of the gradient norm against the layer, for attention and feed-forward, at the start "
        "and at the end of training. The numbers are in results.json.",
        keys=series.labels(summary),
        panels=panels,
        across=2,
    )


def residual(summary: Summary) -> Chart:
    """The variance of the residual stream by depth, at the start and at the end of training."""

    def interleaved(profile: LayerProfile) -> tuple[float, ...]:
        return tuple(value for pair in zip(profile.attention, profile.feed_forward, strict=False) for value in pair)

    panels = _profile_panels(
        summary, lambda result: result.residual_variance, (("", interleaved),), "variance", halves=True
    )
    return Chart(
        name="residual",
        title="Variance of the residual stream by depth",
        caption=(
            "Variance over features (mean over tokens, no unit) of the residual stream as it leaves each layer's attention "
            f"(at the layer's number) and its feed-forward (half a step on), on a logarithmic axis. {_PROFILE} The larger "
            "the stream has grown, the less a later layer can change it."
        ),
        description="Line charts of the variance of the residual stream against depth, at the start and at the end of "
        "training. The numbers are in results.json.",
        keys=series.labels(summary),
        panels=panels,
        across=2,
    )


def _named(summary: Summary) -> Iterable[tuple[str, PlacementSummary]]:
    return zip(series.labels(summary), summary.placements, strict=True)


def _cross(summary: Summary) -> str:
    diverged = any(result.status == "diverged" for result in summary.trials)
    return " ✕\u00a0marks where a diverged trial ended." if diverged else ""


def _floor(summary: Summary, along: Literal["x", "y"]) -> Reference:
    measure = measure_of(summary)
    value = measure.number(summary.floor)
    assert value is not None
    return Reference(value=value, label=f"{measure.floor} {measure.text(value)}", along=along)


def _seed(name: str, result: TrialResult) -> str:
    return f"{name}, seed {result.trial.seed}"


def _ended(name: str, result: TrialResult) -> str:
    return f"{_seed(name, result)}: diverged at step {result.step:,}"


def _loss_axes(summary: Summary) -> tuple[axes.Axis, axes.Axis]:
    """One pair for all panels; curves of diverged trials may leave at the top, unless there are no others."""
    steps = [0.0, *(float(result.step) for result in summary.trials)]
    sound = [result for result in summary.trials if result.status != "diverged"]
    curves = [
        curve for result in sound for curve in (series.finite(result.train_curve), series.finite(result.eval_curve))
    ]
    if not any(curves):
        curves = [series.finite(result.train_curve)[:1] for result in summary.trials]
    values = [summary.floor.loss, *(y for curve in curves for _, y in curve)]
    x = axes.linear("optimizer steps", steps, pad=0.02)
    return replace(x, low=min(0.0, x.low)), axes.linear(f"loss, nats per {measure_of(summary).extent}", values)


def _loss_traces(names: Sequence[str], trials: Sequence[tuple[TrialResult, ...]], y: axes.Axis) -> tuple[Trace, ...]:
    faint: list[Trace] = []
    thin: list[Trace] = []
    strong: list[Trace] = []
    for key, (name, results) in enumerate(zip(names, trials, strict=True)):
        curves = [series.finite(result.eval_curve) for result in results]
        mixed = len(alike(results)) < sum(result.status in ("finished", "stalled") for result in results)
        if not mixed:
            mean = series.mean_curve([_training(r) for r in results])
            faint.append(_trace(key, "training", f"{name}, training", mean))
        for result, curve in zip(results, curves, strict=True):
            if result.status == "diverged":
                strong.append(_trace(key, "ended", _ended(name, result), (_end(result, y),)))
            if mixed:  # a mean would lie where no seed is
                faint.append(_trace(key, "training", f"{_seed(name, result)}, training", _training(result)))
                strong.append(_trace(key, "mean", f"{_seed(name, result)}, {result.status}", curve))
            elif len(results) > 1:
                if result.status == "diverged":  # its last stretch, which the mean may leave out
                    faint.append(_trace(key, "training", f"{_seed(name, result)}, training", _training(result)))
                thin.append(_trace(key, "seed", _seed(name, result), curve))
        if not mixed:
            strong.append(_trace(key, "mean", f"{name}, held out", series.mean_curve(curves)))
    return tuple(trace for trace in (*faint, *thin, *strong) if trace.points)


def _training(result: TrialResult) -> Points:
    return series.finite(result.train_curve)


def _end(result: TrialResult, y: axes.Axis) -> tuple[float, float]:
    """Where the cross of a diverged trial stands: at its last training loss, or at the upper edge."""
    last = max((*_training(result), *series.finite(result.eval_curve)), default=None)
    return float(result.step), y.inside(last[1] if last else None)


def _settled(measure: Measure, result: TrialResult) -> float | None:
    """The number of a trial that did not diverge, if it has a finite one."""
    value = measure.number(result)
    return value if value is not None and math.isfinite(value) and result.status != "diverged" else None


def _scale(summary: Summary) -> axes.Axis:
    """From the best seed to the worst that did not diverge; the simplest model only where a trial comes near it."""
    measure = measure_of(summary)
    values = [value for result in summary.trials if (value := _settled(measure, result)) is not None]
    values += [v for row in summary.placements if (v := measure.number(row.best)) is not None and math.isfinite(v)]
    floor = measure.number(summary.floor)
    assert floor is not None
    if not values or (max(values) > 0.6 * floor if measure.lower_is_better else min(values) < floor / 0.6):
        values.append(floor)
    if measure.logarithmic:
        return axes.logarithmic(measure.name, values)
    return axes.linear(f"{measure.name}, {measure.unit}", values)


def _edge(measure: Measure, scale: axes.Axis, result: TrialResult) -> float:
    """Where the cross of a diverged trial stands: at its number, or at the worse end of the scale."""
    value = measure.number(result)
    return scale.inside(-math.inf if value is None and not measure.lower_is_better else value)


def _by_placement(summary: Summary, names: Sequence[str], title: str) -> Panel:
    """A row for each placement: the mean with its value, below it the seeds; where some stalled, the seeds in the place of the mean."""
    measure, scale = measure_of(summary), _scale(summary)
    traces: list[Trace] = []
    for key, (name, row) in enumerate(zip(names, summary.placements, strict=True)):
        results = series.trials_at(summary, row, row.best.learning_rate)
        below = -key - 0.25
        mixed = row.best.mixed
        for result in results if len(results) > 1 else ():
            value = _settled(measure, result)
            if value is not None:
                role, at = ("center", -key) if mixed else ("dot", below)
                traces.append(_trace(key, role, _seed(name, result), ((value, at),)))
        mean = measure.number(row.best)
        if mean is not None and math.isfinite(mean):
            if not mixed:
                traces.append(_trace(key, "center", f"{name}, mean", ((mean, -key),)))
            side = "note" if scale.share(mean) > 0.6 else "value"
            traces.append(_trace(key, side, measure.say(row.best), ((mean, -key),)))
        diverged = [result for result in results if result.status == "diverged"]
        ends = [(_edge(measure, scale, result), below) for result in diverged]
        traces += [
            _trace(key, "ended", _ended(name, result), (end,)) for result, end in zip(diverged, ends, strict=True)
        ]
        if ends:
            note = formats.divergence(len(diverged), [result.step for result in diverged])
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
    """The mean against the learning rate; crosses stand beside each other, for they have the same place."""
    measure, scale, rates = measure_of(summary), _scale(summary), learning_rates(summary)
    traces: list[Trace] = []
    for key, (name, row) in enumerate(zip(names, summary.placements, strict=True)):
        points = [(cell.learning_rate, v, cell.mixed) for cell in row.cells if (v := measure.number(cell)) is not None]
        # Where some seeds trained and others stalled, the line has a gap and the dots are all there is.
        line = tuple((rate, math.nan if mixed else value) for rate, value, mixed in points if math.isfinite(value))
        for cell in row.cells:
            beside = cell.learning_rate * (rates[-1] / rates[0]) ** (0.025 * (key - (len(names) - 1) / 2))
            for result in series.trials_at(summary, row, cell.learning_rate):
                value = _settled(measure, result)
                if result.status == "diverged":
                    traces.append(
                        _trace(key, "ended", _ended(name, result), ((beside, _edge(measure, scale, result)),))
                    )
                elif value is not None:
                    traces.append(_trace(key, "dot", _seed(name, result), ((cell.learning_rate, value),)))
        traces.append(_trace(key, "mean", f"{name}, mean", line))
    x = replace(axes.logarithmic("learning rate", rates), ticks=tuple((r, formats.learning_rate(r)) for r in rates))
    return Panel(
        title="by learning rate",
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
    """A row of panels for each part, start left and end right, all with the same range."""
    names = series.labels(summary)
    trials = [series.trials_at(summary, row, row.best.learning_rate) for row in summary.placements]
    chosen = [[profiles_of(result) for result in alike(results)] for results in trials]
    times = (
        ("start", [series.first_profiles(group) for group in chosen]),
        ("end", [series.last_profiles(group) for group in chosen]),
    )
    found: list[tuple[str, tuple[Trace, ...]]] = []
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
            found.append((f"{part}, {time}{_steps(groups)}".removeprefix(", "), traces))
    if not any(traces for _, traces in found):
        return ()
    x = axes.layers(depth, halves=halves)
    y = axes.logarithmic(label, [value for _, traces in found for trace in traces for value in trace.y])
    return tuple(Panel(title=title, x=x, y=y, traces=traces) for title, traces in found)


def _steps(groups: Sequence[Sequence[LayerProfile]]) -> str:
    steps = [profile.step for group in groups for profile in group]
    if not steps:
        return ""
    low, high = min(steps), max(steps)
    return f" (step {low:,})" if low == high else f" (steps {low:,}–{high:,})"


def _trace(key: int, role: series.Role, label: str, points: Points) -> Trace:
    return Trace(key=key, role=role, label=label, points=points)
