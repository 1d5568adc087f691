import dataclasses
import io
import math
import re

import pytest
from PIL import Image

from mixln.report import names as naming
from mixln.report.figures import diagnosis, interactive
from mixln.report.figures import png as figures
from mixln.report.figures.comparison import prepare
from mixln.report.figures.diagnosis import charts_of
from mixln.report.figures.models import models_of
from mixln.report.figures.series import Chart
from mixln.report.figures.styles import style
from mixln.report.wording import charts as words
from mixln.report.wording import diagnosis_charts as texts
from mixln.runs.profile import Profile
from tests.report import diagnosis_samples as samples

EVERY = (samples.one, samples.four, samples.bare, samples.mixed, samples.hostile)


def charts(make) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(make().models)}


def test_charts_without_data_are_left_out() -> None:
    assert list(charts(samples.bare)) == ["angular", "influence", "residual"]
    assert list(charts(samples.four)) == [
        "angular",
        "influence",
        "drops",
        "drops-acc_of_arc_easy",
        "gates",
        "gradients",
        "residual",
        "gains",
        "jacobian",
    ]
    assert charts_of(()) == ()


@pytest.mark.parametrize("make", EVERY)
def test_every_figure_says_what_it_shows(make) -> None:
    for chart in charts_of(make().models):
        assert all((chart.title, chart.caption, chart.description, chart.panels))
        for panel in chart.panels:
            assert panel.title
            assert panel.traces
            assert all(trace.label and trace.points for trace in panel.traces)
            assert all(len(trace.texts) in (0, len(trace.points)) for trace in panel.traces)
            for trace in panel.traces:
                assert all(panel.x.holds(x) for x in trace.x)
                assert all(panel.y.holds(y) for y in trace.y if not math.isnan(y))


@pytest.mark.long
@pytest.mark.parametrize("make", EVERY)
def test_pngs_show_every_model_in_its_colour(make) -> None:
    record = make()
    for chart in charts_of(record.models):
        image = Image.open(io.BytesIO(figures.png(chart))).convert("RGB")
        assert image.width == 1400
        assert 400 <= image.height <= 1800
        counts = {colour: count for count, colour in image.crop((0, 125, 1400, image.height)).getcolors(1 << 24)}
        assert 0.005 < 1 - counts[255, 255, 255] / (1400 * (image.height - 125)) < 0.6
        lines = {trace.key for panel in chart.panels for trace in panel.traces if trace.role == "mean"}
        for key in lines:
            assert counts.get(tuple(bytes.fromhex(style(key).colour[1:])), 0) > 40


def test_block_influence_stands_beside_the_angle_of_neighbours() -> None:
    record = samples.four()
    influence, angle = charts(samples.four)["influence"].panels
    assert influence.traces[1].y == list(record.models[1].angular.influence)
    assert angle.traces[1].y == [row[0] for row in record.models[1].angular.distance]
    assert [len(trace.points) for trace in angle.traces] == [12, 12, 12, 16]
    assert angle.x.holds(16)


def test_gradients_as_they_are_and_drawn_anew_share_one_axis() -> None:
    record = samples.four()
    chart = charts(samples.four)["gradients"]
    assert [panel.title for panel in chart.panels] == [
        texts.branch_panel(branch, state)
        for branch in (words.ATTENTION, words.FEED_FORWARD)
        for state in (texts.AS_LOADED, texts.INITIAL)
    ]
    assert len({panel.y for panel in chart.panels}) == 1
    assert chart.panels[0].y.log
    for panel, of in zip(chart.panels, ("gradients", "initial", "gradients", "initial"), strict=True):
        norm = getattr(record.models[2], of).norm
        expected = norm.attention if "attention" in panel.title else norm.feed_forward
        assert panel.traces[2].y == list(expected)


def test_a_model_without_branches_has_one_line_of_whole_layers() -> None:
    one = samples.model("a", 4)
    assert one.gradients is not None
    values = one.gradients.norm.feed_forward
    whole = dataclasses.replace(one.gradients, norm=Profile(attention=(), feed_forward=values))
    without = dataclasses.replace(one, model="b", gradients=whole, initial=None)
    (panel,) = diagnosis.gradients(models_of([without])).panels
    assert panel.title == texts.branch_panel(texts.WHOLE_LAYER, texts.AS_LOADED)
    both = diagnosis.gradients(models_of([dataclasses.replace(one, initial=None), without]))
    assert [[trace.key for trace in panel.traces] for panel in both.panels] == [[0], [0, 1]]
    assert both.text == texts.gradients(initial=False, some_unknown=True)


def test_the_stream_is_shown_from_its_entry_on() -> None:
    variance = charts(samples.mixed)["residual"].panels[0]
    model = samples.mixed().models[0]
    known, _, whole = variance.traces
    assert known.points[:3] == (
        (0.5, model.stream.entry_variance),
        (1.0, model.stream.variance.attention[0]),
        (1.5, model.stream.variance.feed_forward[0]),
    )
    assert len(known.points) == 2 * 12 + 1
    assert known.texts == tuple(texts.depth(x, y) for x, y in known.points)
    assert whole.points == ((0.5, 1.0), (1.5, 1.0), (2.5, 2.0), (3.5, 3.0), (4.5, 4.0))
    assert [panel.title for panel in charts(samples.mixed)["residual"].panels] == [
        texts.STREAM_VARIANCE,
        texts.STREAM_NORM,
        texts.share_panel(words.ATTENTION),
        texts.share_panel(words.FEED_FORWARD),
    ]
    assert len(charts(samples.bare)["residual"].panels) == 2


def test_values_without_a_logarithm_are_gaps() -> None:
    one = samples.minimal("a")
    flat = dataclasses.replace(one.stream, variance=Profile(attention=(), feed_forward=(0.0, 2.0, math.nan)))
    panel = diagnosis.residual(models_of([dataclasses.replace(one, stream=flat)])).panels[0]
    assert [y if y == y else None for y in panel.traces[0].y] == [1.0, None, 2.0, None]


def test_gains_by_the_name_of_their_norm() -> None:
    first, second = samples.minimal("a"), samples.minimal("b")
    gains = {f"norm {index}": (1.0, None, 2.0 + index) for index in range(8)}
    first = dataclasses.replace(first, stream=dataclasses.replace(first.stream, gains=gains))
    second = dataclasses.replace(second, stream=dataclasses.replace(second.stream, gains={"norm 1": (3.0, 3.0, 3.0)}))
    chart = diagnosis.gains(models_of([first, second]))
    assert [panel.title for panel in chart.panels] == [texts.gain_panel(f"norm {index}") for index in range(6)]
    assert chart.text == texts.gains(2, [(panel.title, 0.0) for panel in chart.panels])
    assert [trace.key for trace in chart.panels[1].traces] == [0, 1]
    first_layer, gap, last = chart.panels[1].traces[0].y
    assert (first_layer, last) == (1.0, 3.0)
    assert math.isnan(gap)
    assert chart.panels[0].y.low == 0


def test_jacobians() -> None:
    record = samples.one().models[0]
    assert record.jacobian is not None
    largest, distance, typical = charts(samples.one)["jacobian"].panels
    assert largest.traces[0].y == list(record.jacobian.largest)
    assert distance.traces[0].y == list(record.jacobian.distance)
    assert typical.traces[0].y == list(record.jacobian.typical)
    assert [trace.key for trace in charts(samples.mixed)["jacobian"].panels[0].traces] == [0]


def test_names_are_cut_only_where_they_stay_different() -> None:
    long = "an organisation/a model with a long name, "
    names = [long + "one", long + "two", "x" * 40, "short\n"]
    found = naming.models([samples.minimal(name) for name in names])
    assert found == (long + "one", long + "two", "x" * 27 + "…", "short ")


def test_a_diagnosed_placement_keeps_its_colour() -> None:
    summary = samples.compared()
    made = {chart.name: chart for chart in diagnosis.of_summary(summary)}
    assert made["diagnosis-angular"].panels[0].key == 1
    lines = made["diagnosis-influence"]
    assert lines.keys == (*naming.placements(summary), "another")
    assert [trace.key for trace in lines.panels[0].traces] == [1, 2, 4]
    assert not {chart.name for chart in prepare(summary)} & set(made)
    assert diagnosis.of_summary(dataclasses.replace(summary, diagnoses=())) == ()


def test_plotly_draws_the_same_points() -> None:
    for chart in charts_of(samples.four().models):
        for panel in chart.panels:
            drawn = [part for part in interactive.plotly_figure(panel).data if part.type != "heatmap"]
            for trace, part in zip(panel.traces, drawn, strict=True):
                assert list(part.x) == trace.x
                assert [y if y is not None else math.nan for y in part.y] == pytest.approx(
                    [panel.y.drawn(y) for y in trace.y], nan_ok=True
                )
                assert part.meta == trace.key


def test_a_line_on_a_bent_axis_says_its_own_values() -> None:
    one = samples.minimal("a", 3)
    angular = dataclasses.replace(one.angular, influence=(9.0, 0.01, 0.02))
    panel = diagnosis.influence(models_of([dataclasses.replace(one, angular=angular)])).panels[0]
    assert panel.y.bend > 0
    (line,) = interactive.plotly_figure(panel).data
    assert [value for _, value in line.customdata] == [9.0, 0.01, 0.02]
    assert "%{customdata[1]:" in line.hovertemplate
    assert "%{x:" in line.hovertemplate


def test_plotly_gets_names_without_tags_or_formulas() -> None:
    for chart in charts_of(samples.hostile().models):
        for panel in chart.panels:
            text = interactive.plotly_figure(panel).to_json().replace("\\u003c", "<").replace("\\u003e", ">")
            assert set(re.findall(r"<[^>]*>", text)) <= {"<b>", "<br>", "<extra>", "<\\u002fb>", "<\\u002fextra>"}
            assert "$" not in text
