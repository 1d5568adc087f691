import dataclasses
import math

import pytest

from mixln.diagnostics.results import Diagnosis, Drop, Drops, Gradients
from mixln.report.figures import drops, interactive
from mixln.report.figures import png as figures
from mixln.report.figures.models import models_of
from mixln.report.figures.series import Panel, Trace
from mixln.report.wording import diagnosis_charts as texts
from mixln.report.wording.charts import bent
from mixln.report.wording.diagnosis_charts import CIRCLES, NOT_COMPARABLE
from mixln.runs.profile import Profile
from tests.report import diagnosis_samples as samples


def with_drops(name: str, measured: Drops, **changes: object) -> Diagnosis:
    return dataclasses.replace(samples.minimal(name, len(measured.skipped)), drops=measured, **changes)  # type: ignore[arg-type]


def traces(panel: Panel, role: str) -> list[Trace]:
    return [trace for trace in panel.traces if trace.role == role]


def test_bars_and_their_intervals() -> None:
    measured = samples.loss_drops((0.4, -0.1, 0.2))
    (panel,) = drops.performance_drops(models_of([with_drops("a", measured)])).panels
    (bars,), (spans,) = traces(panel, "bar"), traces(panel, "span")
    assert bars.points == ((1.0, 0.4), (2.0, -0.1), (3.0, 0.2))
    assert bars.texts == tuple(texts.drop(each, measured) for each in measured.skipped)
    assert [x for x, _ in spans.points] == [1.0] * 3 + [2.0] * 3 + [3.0] * 3
    assert spans.y[0] == pytest.approx(0.32)
    assert spans.y[1] == pytest.approx(0.48)
    assert math.isnan(spans.y[2])
    assert panel.y.holds(0.48)
    assert panel.y.holds(-0.12)
    assert panel.y.label == texts.drops_axis("nats per token")
    assert panel.title == texts.drops_panel("a", measured)


def test_without_intervals_none_are_drawn() -> None:
    one = Drop(first=1, last=1, value=6.0, change=0.7, low=None, high=None)
    measured = dataclasses.replace(samples.loss_drops((0.1,)), skipped=(one,))
    (panel,) = drops.performance_drops(models_of([with_drops("a", measured)])).panels
    assert [trace.role for trace in panel.traces] == ["bar"]
    assert panel.traces[0].texts == (texts.drop(one, measured),)


def test_zeroed_branches_are_shown_where_they_differ() -> None:
    same = samples.loss_drops((0.4, 0.1), (0.4, 0.1 + 1e-6))
    other = samples.loss_drops((0.4, 0.1), (0.4, 0.3))
    chart = drops.performance_drops(models_of([with_drops("a", same), with_drops("b", other)]))
    assert [len(traces(panel, "open")) for panel in chart.panels] == [0, 1]
    assert traces(chart.panels[1], "open")[0].points == ((1.0, 0.4), (2.0, 0.3))
    assert CIRCLES in chart.caption
    assert CIRCLES not in drops.performance_drops(models_of([with_drops("a", same)])).caption


def test_models_of_one_measure_share_their_axis() -> None:
    small, large = samples.loss_drops((0.1, 0.2)), samples.loss_drops((0.3, 0.5))
    chart = drops.performance_drops(models_of([with_drops("a", small), with_drops("b", large)]))
    assert chart.panels[0].y == chart.panels[1].y
    assert chart.panels[0].y.holds(0.6)
    assert not chart.caption.endswith(NOT_COMPARABLE)


def test_models_of_different_measures_do_not() -> None:
    chart = drops.performance_drops(
        models_of(
            [with_drops("a", samples.loss_drops((0.1, 0.2))), with_drops("b", samples.task("accuracy", (-0.3, 0.1)))]
        )
    )
    first, second = chart.panels
    assert (first.y.label, second.y.label) == tuple(map(texts.drops_axis, ("nats per token", "fraction of answers")))
    assert not first.y.holds(-0.3)
    assert "accuracy" in second.title
    assert chart.caption.endswith(NOT_COMPARABLE)


def test_a_bent_axis_is_the_same_in_both_libraries_and_is_explained() -> None:
    chart = drops.performance_drops(models_of([with_drops("a", samples.loss_drops((8.0, 0.03, -0.012, 0.02)))]))
    (panel,) = chart.panels
    assert panel.y.bend == 0.01
    assert bent([("", 0.01)]) in chart.caption
    expected = [math.asinh(change / 0.01) for change in (8.0, 0.03, -0.012, 0.02)]
    drawn = interactive.plotly_figure(panel)
    assert drawn.data[0].type == "bar"
    assert list(drawn.data[0].y) == pytest.approx(expected)
    assert drawn.data[0].hovertext[0].startswith("layer 1: +8.00")
    axes = figures.matplotlib_figure(chart).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axes.patches] == pytest.approx([1, 2, 3, 4])
    ticks = dict(zip(drawn.layout.yaxis.ticktext, drawn.layout.yaxis.tickvals, strict=True))
    assert ticks["0.1"] == pytest.approx(math.asinh(10))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ticks)
    assert list(axes.get_yticks()) == pytest.approx(list(ticks.values()))
    assert axes.get_ylim() == pytest.approx(drawn.layout.yaxis.range)


@pytest.mark.parametrize("measured", [samples.loss_drops((0.1, 0.2)), samples.task("accuracy", (-0.1, -0.2))])
def test_a_measure_that_is_not_finite_is_a_cross_at_the_end_of_harm(measured: Drops) -> None:
    lost = dataclasses.replace(measured.skipped[1], change=math.nan, low=None, high=None)
    measured = dataclasses.replace(measured, skipped=(measured.skipped[0], lost))
    chart = drops.performance_drops(models_of([with_drops("a", measured)]))
    (panel,) = chart.panels
    (cross,) = traces(panel, "ended")
    assert cross.x == [2.0]
    assert (panel.y.share(cross.y[0]) > 0.9) if measured.harm > 0 else (panel.y.share(cross.y[0]) < 0.1)
    assert cross.texts == (texts.drop(lost, measured),)
    assert traces(panel, "bar")[0].x == [1.0]
    assert "✕" in chart.caption


def test_each_task_has_a_chart_with_a_name_of_its_own() -> None:
    measures = ("accuracy on arc_easy", "accuracy on arc-easy", "7", "§")
    tasks = tuple(samples.task(measure, (-0.1, 0.1)) for measure in measures)
    first, second = (
        dataclasses.replace(samples.minimal(name, 2), tasks=tasks[:count]) for name, count in (("a", 4), ("b", 1))
    )
    charts = list(drops.task_drops(models_of([first, second])))
    assert [chart.name for chart in charts] == [
        "drops-accuracy_on_arc_easy",
        "drops-accuracy_on_arc_easy_2",
        "drops-task_7",
        "drops-task_",
    ]
    assert [len(chart.panels) for chart in charts] == [2, 1, 1, 1]
    assert charts[0].title.endswith(measures[0])


def with_gate(name: str, measured: Drops, attention: tuple[float, ...], feed_forward: tuple[float, ...]) -> Diagnosis:
    gradients = Gradients(
        norm=Profile(attention=attention, feed_forward=feed_forward),
        gate=Profile(attention=attention, feed_forward=feed_forward),
        loss=5.3,
        tokens=100,
    )
    return with_drops(name, measured, gradients=gradients)


def test_the_estimate_stands_beside_the_exact_drop() -> None:
    gate = ((-0.1, -0.2, -0.3, -0.4), (-0.05, 0.1, -0.1, -0.2))
    skipped = samples.loss_drops((0.1, 0.2, 0.5, 0.6))
    zeroed = samples.loss_drops((0.1, 0.2, 0.5, 0.6), (0.6, 0.5, 0.2, 0.1))
    chart = drops.gates(models_of([with_gate("a", skipped, *gate), with_gate("b", zeroed, *gate)]))
    first, second = chart.panels
    (circles,) = traces(first, "open")
    assert circles.y == pytest.approx([0.15, 0.1, 0.4, 0.6])
    assert circles.texts[2] == texts.estimate(3, circles.y[2], "nats per token")
    assert traces(first, "bar")[0].y == [0.1, 0.2, 0.5, 0.6]
    assert traces(second, "bar")[0].y == [0.6, 0.5, 0.2, 0.1]
    assert (first.title, second.title) == (texts.gates_panel("a", 0.8), texts.gates_panel("b", -0.8))
    assert first.y == second.y


def test_only_models_with_a_loss_and_gradients_are_estimated() -> None:
    gate = ((-0.1, -0.2, -0.3), (-0.05, 0.1, -0.1))
    models = [
        with_drops("no gradients", samples.loss_drops((0.1, 0.2, 0.5))),
        with_gate("no loss", samples.task("accuracy", (0.1, 0.2, 0.3)), *gate),
        with_gate("no gates", samples.loss_drops((0.1, 0.2, 0.5)), (), ()),
        with_gate("three layers", samples.loss_drops((0.1, 0.2, 0.5)), *gate),
    ]
    chart = drops.gates(models_of(models))
    assert [panel.title for panel in chart.panels] == ["three layers"]
