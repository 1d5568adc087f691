import dataclasses
import math

import pytest

from mixln.compare.results import Summary
from mixln.report import names as naming
from mixln.report.figures import axes, series
from mixln.report.figures import comparison as charts
from mixln.report.figures.styles import style
from mixln.report.wording import charts as words
from mixln.report.wording import comparison_charts as texts
from mixln.report.wording import phrases
from mixln.runs.profile import LayerProfile
from tests.report import samples

EVERY = (samples.usual, samples.one_seed, samples.several_rates, samples.eight, samples.bare, samples.hostile)


def traces(panel: series.Panel, role: str) -> list[series.Trace]:
    return [trace for trace in panel.traces if trace.role == role]


@pytest.mark.parametrize(
    ("low", "high"), [(148, 262), (1150, 1220), (140, 1700), (0.05, 0.7), (1e-9, 300), (0.99, 1.01)]
)
def test_logarithmic_axes_have_a_few_round_ticks(low: float, high: float) -> None:
    ticks = axes.log_ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert all(low <= value <= high for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_axes_without_data_or_with_one_value() -> None:
    assert axes.linear("", []).high > axes.linear("", []).low
    assert axes.logarithmic("", []).high > axes.logarithmic("", []).low > 0
    one = axes.logarithmic("", [200.0, math.inf, 0.0, math.nan])
    assert one.low < 200 < one.high
    assert one.ticks


def test_what_lies_beyond_an_axis_is_moved_inside() -> None:
    for axis in (axes.linear("", [1.0, 10.0]), axes.logarithmic("", [1.0, 10.0])):
        assert axis.low < axis.inside(0.001) < axis.inside(5.0) < axis.inside(1e9) < axis.high
        assert axis.inside(None) == pytest.approx(axis.inside(math.inf))
        assert axis.inside(5.0) == pytest.approx(5.0)


def test_layers_are_counted_from_one() -> None:
    assert [text for _, text in axes.layers(12).ticks] == [str(layer) for layer in range(1, 13)]
    assert [value for value, _ in axes.layers(32).ticks] == [4, 8, 12, 16, 20, 24, 28, 32]


def test_the_mean_ends_where_the_first_seed_ends() -> None:
    long, short = ((0.0, 8.0), (10.0, 6.0), (20.0, 5.0)), ((0.0, 9.0), (10.0, 7.0))
    assert series.mean_curve([long, short]) == ((0.0, 8.5), (10.0, 6.5))
    assert series.mean_curve([long, ()]) == long
    assert series.mean_curve([]) == ()


def test_curves_leave_out_what_is_not_finite() -> None:
    assert series.finite([(0, 8.0), (1, math.nan), (2, math.inf), (3, None), (4, 5.0)]) == ((0.0, 8.0), (4.0, 5.0))


def test_mean_profiles_have_gaps_where_a_seed_has_no_positive_value() -> None:
    first, second, third, fourth = series.mean_profile([(1.0, 0.0, math.inf, None), (3.0, 1.0, 1.0, 1.0)])
    assert first == 2.0
    assert all(math.isnan(value) for value in (second, third, fourth))


def test_the_end_is_that_of_the_seeds_that_came_furthest() -> None:
    def profile(step: int) -> LayerProfile:
        return LayerProfile(step=step, attention=(1.0,), feed_forward=(1.0,))

    assert series.last_profiles([(profile(0), profile(40)), (profile(0), profile(300)), (profile(0),), ()]) == (
        profile(300),
    )
    assert len(series.first_profiles([(profile(0), profile(40)), (profile(0),), ()])) == 2


def test_labels_are_different_for_each_placement() -> None:
    names = [
        ("mix(0.25)", "Mix-LN", "normal"),
        ("mix(0.5)", "Mix-LN", "normal"),
        ("pre", "Pre-LN", "a"),
        ("post", "Post-LN", "a"),
    ]
    names += [("lns", "LNS", "a"), ("lns", "LNS", "b"), ("pre,post", "x" * 60, "a")]
    rows = [samples.row(name, [samples.cell([samples.result(name)])]) for name in names]
    assert naming.placements(samples.summary(rows, [])) == (
        "mix(0.25)",
        "mix(0.5)",
        "Pre-LN",
        "Post-LN",
        "lns, a",
        "lns, b",
        "x" * 27 + "…",
    )


def test_styles_differ() -> None:
    assert len({(look.colour, look.marker.plotly, look.dash) for look in map(style, range(32))}) == 32
    assert len({(style(key).colour) for key in range(8)}) == 8
    assert len({(style(key).marker.matplotlib) for key in range(8)}) == 8


def test_loss_curves() -> None:
    (panel,) = charts.loss(samples.usual()).panels
    assert [len(traces(panel, role)) for role in ("mean", "seed", "training", "ended")] == [4, 8, 4, 0]
    pre = traces(panel, "mean")[0]
    assert pre.points[-1] == (300.0, pytest.approx(5.32))
    assert panel.reference is not None
    assert panel.reference.value == 7.05
    assert panel.y.low < 5.0
    assert panel.y.high > 8.3


def test_loss_curves_at_every_learning_rate() -> None:
    chart = charts.loss(samples.several_rates())
    assert [panel.title for panel in chart.panels] == [
        phrases.TUNED,
        *map(words.at_rate, (0.0003, 0.001, 0.003)),
    ]
    ended = traces(chart.panels[3], "ended")
    assert [trace.points[0][0] for trace in ended] == [40.0, 70.0]
    assert all(trace.points[0][1] < chart.panels[3].y.high for trace in ended)
    assert words.CROSS in chart.caption
    assert words.CROSS not in charts.loss(samples.usual()).caption


def test_perplexity_rows() -> None:
    (panel,) = charts.ranking(samples.usual()).panels
    assert [text for _, text in panel.y.ticks] == ["Pre-LN", "Post-LN", "Mix-LN", "HybridNorm*"]
    assert [len(traces(panel, role)) for role in ("center", "dot")] == [4, 8]
    assert traces(panel, "center")[0].points[0][0] == pytest.approx(math.exp(5.32))
    assert panel.x.holds(samples.FLOOR.loss and math.exp(samples.FLOOR.loss))


def test_a_unigram_model_far_off_does_not_squeeze_the_others() -> None:
    (panel,) = charts.ranking(samples.eight()).panels
    assert panel.reference is not None
    assert not panel.x.holds(panel.reference.value)


def test_a_diverged_trial_without_a_loss_has_a_cross_in_the_perplexity() -> None:
    (panel,) = charts.ranking(samples.one_seed()).panels
    (cross,) = traces(panel, "ended")
    assert panel.x.holds(cross.points[0][0])
    assert [trace.label for trace in traces(panel, "note") if "diverged" in trace.label] == [
        phrases.divergence(1, [40])
    ]
    _, by_rate = charts.ranking(samples.several_rates()).panels
    assert len(traces(by_rate, "ended")) == 2
    assert len(traces(by_rate, "mean")) == 4


def test_a_diverged_trial_with_an_infinite_perplexity_stays_on_the_axis() -> None:
    trials = [samples.result(samples.PRE), samples.result(samples.POST, loss=900.0, status="diverged", step=9)]
    rows = [samples.row(name, [samples.cell([r])]) for name, r in zip((samples.PRE, samples.POST), trials, strict=True)]
    (panel,) = charts.ranking(samples.summary(rows, trials)).panels
    assert all(panel.x.holds(x) for trace in panel.traces for x in trace.x)


def test_gradients_and_residual_stream() -> None:
    summary = samples.usual()
    gradients, residual = charts.gradients(summary), charts.residual(summary)
    assert [panel.title for panel in gradients.panels] == [
        texts.profile(words.ATTENTION, texts.START, [1]),
        texts.profile(words.ATTENTION, texts.END, [300]),
        texts.profile(words.FEED_FORWARD, texts.START, [1]),
        texts.profile(words.FEED_FORWARD, texts.END, [300]),
    ]
    assert [panel.title for panel in residual.panels] == [
        texts.profile("", texts.START, [0]),
        texts.profile("", texts.END, [300]),
    ]
    assert len({(panel.y.low, panel.y.high) for panel in gradients.panels}) == 1
    trials = [result for result in summary.trials if result.trial.placement == "pre"]
    mean = sum(result.gradient_norms[1].attention[11] for result in trials) / 2
    assert gradients.panels[1].traces[0].points[11] == (12.0, pytest.approx(mean))
    mean = sum(result.residual_variance[0].feed_forward[3] for result in trials) / 2
    assert residual.panels[0].traces[0].points[7] == (4.5, pytest.approx(mean))


def test_a_training_with_one_record_has_no_end() -> None:
    summary = samples.one_seed()
    trials = tuple(
        dataclasses.replace(
            result, gradient_norms=result.gradient_norms[: 1 if result.trial.placement == "post" else 2]
        )
        for result in summary.trials
    )
    start, end, *_ = charts.gradients(dataclasses.replace(summary, trials=trials)).panels
    assert [trace.key for trace in start.traces] == [0, 1, 2]
    assert [trace.key for trace in end.traces] == [0, 1]


def test_without_curves_there_are_no_panels() -> None:
    found = {chart.name: len(chart.panels) for chart in charts.prepare(samples.bare())}
    assert found == {"loss": 0, "perplexity": 1, "gradients": 0, "residual": 0}


@pytest.mark.parametrize("make", EVERY)
def test_every_figure_says_what_it_shows(make) -> None:
    for chart in charts.prepare(make()):
        assert all((chart.title, chart.caption, chart.description, chart.keys))
        assert all(trace.label and trace.points for panel in chart.panels for trace in panel.traces)


def mixed() -> Summary:
    """Pre-LN trained at both seeds; Post-LN trained at one and stalled at the other."""
    pre = [samples.result(samples.PRE, seed=seed, loss=5.0 + 0.1 * seed) for seed in (0, 1)]
    post = [samples.result(samples.POST, loss=4.5), samples.result(samples.POST, seed=1, loss=7.1, status="stalled")]
    cells = [samples.cell(pre), dataclasses.replace(samples.cell(post), loss=4.5)]
    rows = [samples.row(name, [cell]) for name, cell in zip((samples.PRE, samples.POST), cells, strict=True)]
    return dataclasses.replace(samples.usual(), placements=tuple(rows), trials=(*pre, *post))


def test_where_seeds_stalled_the_seeds_are_drawn_and_no_mean() -> None:
    chart = charts.loss(mixed())
    (panel,) = chart.panels
    assert [trace.label for trace in traces(panel, "mean")] == [
        texts.held_out("Pre-LN"),
        texts.ended(words.seed("Post-LN", 0), "finished"),
        texts.ended(words.seed("Post-LN", 1), "stalled"),
    ]
    assert [trace.y[-1] for trace in traces(panel, "mean")] == pytest.approx([5.05, 4.5, 7.1])
    assert {trace.label for trace in traces(panel, "training") if trace.key == 1} == {
        texts.training(words.seed("Post-LN", 0)),
        texts.training(words.seed("Post-LN", 1)),
    }
    assert f"Post-LN 4.500{phrases.beside(1)}" in chart.description


def test_the_perplexity_of_seeds_of_which_some_stalled_is_no_mean() -> None:
    (panel,) = charts.ranking(mixed()).panels
    centers = [(trace.label, trace.x[0]) for trace in traces(panel, "center") if trace.key == 1]
    assert centers == [
        (words.seed("Post-LN", 0), pytest.approx(math.exp(4.5))),
        (words.seed("Post-LN", 1), pytest.approx(math.exp(7.1))),
    ]
    assert [t.label for t in panel.traces if t.role in ("value", "note") and t.key == 1] == [
        f"90.02{phrases.beside(1)}"
    ]


def test_profiles_are_those_of_the_seeds_that_trained() -> None:
    summary = mixed()
    alone = dataclasses.replace(summary, trials=summary.trials[:3])
    for draw in (charts.gradients, charts.residual):
        assert draw(summary).panels[1].traces[1].y == draw(alone).panels[1].traces[1].y
