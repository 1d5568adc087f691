import dataclasses
import math

import pytest

from mixln.report.figures import angular as heatmap
from mixln.report.figures import interactive
from mixln.report.figures import png as figures
from mixln.report.figures.models import models_of
from mixln.report.figures.series import Chart
from mixln.report.wording import diagnosis_charts as texts
from tests.report import diagnosis_samples as samples

ROWS = ((0.30, 0.35, 0.40), (0.10, 0.20), (0.05,))
"""ROWS[l - 1][n - 1] = d(xˡ, xˡ⁺ⁿ)."""


def chart(*rows: tuple[tuple[float, ...], ...]) -> Chart:
    every = [
        dataclasses.replace(samples.minimal(f"model {index}", len(each)), angular=samples.angular(each))
        for index, each in enumerate(rows)
    ]
    return heatmap.angular(models_of(every))


def test_cells_stand_at_their_first_layer_and_their_number_of_layers() -> None:
    (panel,) = chart(ROWS).panels
    assert panel.heat is not None
    for first, row in enumerate(ROWS, start=1):
        for n, value in enumerate(row, start=1):
            assert panel.heat.values[n - 1][first - 1] == value
    assert [len(row) for row in panel.heat.values] == [3, 2, 1]
    assert (panel.x.label, panel.y.label) == (texts.FROM_LAYER, texts.LAYERS_APART)
    assert (panel.x.low, panel.x.high, panel.y.low, panel.y.high) == (0.5, 3.5, 0.5, 3.5)
    assert [value for value, _ in panel.x.ticks] == [1, 2, 3]


def test_cells_say_which_layers_they_are() -> None:
    (panel,) = chart(ROWS).panels
    assert panel.heat is not None
    assert panel.heat.texts[0][2] == texts.block_angle(3, 1, 0.05)
    assert panel.heat.texts[1][1] == texts.block_angle(2, 2, 0.20)
    assert panel.heat.texts[2][0] == texts.block_angle(1, 3, 0.40)


def test_the_least_cell_of_each_length_is_marked() -> None:
    (panel,) = chart(ROWS).panels
    (dots,) = panel.traces
    assert (dots.role, dots.points) == ("least", ((3.0, 1.0), (2.0, 2.0), (1.0, 3.0)))
    assert dots.texts[1] == texts.least_angle(texts.block_angle(2, 2, 0.20), 2)
    assert heatmap.least([[0.2, 0.1, 0.1], [math.nan, 0.3], [math.nan]]) == ((2.0, 1.0), (2.0, 2.0))


def test_all_models_have_one_scale_of_colours() -> None:
    made = chart(ROWS, ((0.45,),), ((0.01, 0.02), (0.03,)))
    scales = [panel.heat.scale for panel in made.panels if panel.heat]
    assert len(scales) == 3
    assert set(scales) == {made.heat_scale}
    assert (scales[0].low, scales[0].high) == (0.0, 0.5)
    assert [panel.title for panel in made.panels] == ["model 0", "model 1", "model 2"]
    assert made.text == texts.angular(["all"], [("model 0", 3), ("model 1", 1), ("model 2", 1)])


def test_a_cell_that_is_not_finite_is_a_gap() -> None:
    made = chart(((math.nan, 0.2), (0.1,)))
    assert made.heat_scale is not None
    assert made.heat_scale.high == pytest.approx(0.2)
    drawn = interactive.plotly_figure(made.panels[0]).data[0]
    assert [list(row) for row in drawn.z] == [[None, 0.1], [0.2, None]]
    assert drawn.hovertext[0][0] == texts.block_angle(1, 1, math.nan)
    assert figures.png(made).startswith(b"\x89PNG")


def test_both_libraries_draw_the_same_cells() -> None:
    (panel,) = chart(ROWS).panels
    drawn, dots = interactive.plotly_figure(panel).data
    assert (drawn.type, dots.type) == ("heatmap", "scatter")
    assert [list(row) for row in drawn.z] == [[0.30, 0.10, 0.05], [0.35, 0.20, None], [0.40, None, None]]
    assert (list(drawn.x), list(drawn.y)) == ([1, 2, 3], [1, 2, 3])
    axes = figures.matplotlib_figure(chart(ROWS)).axes[0]
    (mesh,) = axes.collections
    values = mesh.get_array()
    assert values is not None
    assert values.filled(-1).tolist() == [[0.30, 0.10, 0.05], [0.35, 0.20, -1], [0.40, -1, -1]]
    assert mesh.get_coordinates()[0][0].tolist() == [0.5, 0.5]
    assert (drawn.zmin, drawn.zmax) == mesh.get_clim()
    assert axes.get_aspect() == 1.0


def test_small_angles_are_yellow_and_large_ones_purple() -> None:
    made = chart(((0.0, 0.5), (0.5,)))
    drawn = interactive.plotly_figure(made.panels[0]).data[0]
    assert [drawn.colorscale[0][1], drawn.colorscale[-1][1]] == ["#fde725", "#440154"]
    figure = figures.matplotlib_figure(made)
    (mesh,) = figure.axes[0].collections
    red, green, blue, _ = mesh.to_rgba([0.0])[0]
    assert min(red, green) > 0.85
    assert blue < 0.2
    red, green, blue, _ = mesh.to_rgba([0.5])[0]
    assert green < 0.05
    assert blue > red > 0.2
    assert figure.axes[-1].get_ylabel().replace("\n", " ") == texts.ANGLE_SCALE


def test_small_cells_touch_each_other() -> None:
    every = heatmap.angular(models_of([samples.minimal("few", 40), samples.minimal("many", 41)]))
    few, many = (interactive.plotly_figure(panel).data[0] for panel in every.panels)
    assert (few.xgap, few.ygap, many.xgap, many.ygap) == (1, 1, 0, 0)
    first, second, *_ = figures.matplotlib_figure(every).axes
    assert [axes.collections[0].get_linewidth()[0] for axes in (first, second)] == [0.6, 0]
