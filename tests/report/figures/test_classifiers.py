"""The report of image classifiers: accuracy in place of perplexity, calibration, and a grid of mistakes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mixln.report.figures.calibration import FEWEST, calibration
from mixln.report.figures.classifier_errors import errors_png
from mixln.report.figures.comparison import prepare, ranking
from mixln.report.page.comparison import render
from mixln.report.tables.comparison import markdown_table
from mixln.report.wording import pages
from mixln.report.wording.comparison_charts import calibrated
from mixln.report.wording.comparison_charts import calibration as calibration_text
from mixln.report.writing import write
from tests.report import samples


def test_the_table_is_of_accuracy() -> None:
    head, _, *rows = markdown_table(samples.pictures()).splitlines()
    assert [name.strip() for name in head.strip("|").split("|")] == [
        "placement", "init", "learning rate", "accuracy", "difference from Pre-LN", "top-5 accuracy", "calibration error", "loss",
        "ended", "images/s",
    ]  # fmt: skip
    assert "| 86.25% | — (baseline) | 99.00% | 0.031 |" in rows[0]
    assert "| 88.45% | +2.20 points [+0.93, +3.47] |" in rows[1]
    assert rows[-1] == "| most frequent class |  |  | 10.00% |  |  |  | 2.303 |  |  |"


def test_the_axis_of_accuracy_is_linear_and_holds_the_floor_where_one_comes_near() -> None:
    (panel,) = ranking(samples.pictures()).panels
    assert not panel.x.log
    assert panel.x.label == "accuracy, %"
    assert panel.reference is not None
    assert panel.reference.label == "most frequent class 10.00%"
    assert panel.x.holds(panel.reference.value)


def test_a_reference_beyond_the_axis_stands_at_that_edge() -> None:
    (panel,) = ranking(samples.pictures()).panels
    assert panel.reference is not None
    narrow = type(panel.x)(label="", low=80.0, high=90.0)
    assert panel.reference.on(narrow) == (80.0, f"{panel.reference.label} ←")
    low = type(panel.x)(label="", low=1.0, high=9.0)
    assert panel.reference.on(low) == (9.0, f"{panel.reference.label} →")


def test_calibration_is_the_distance_of_accuracy_and_confidence() -> None:
    (chart,) = calibration(samples.pictures())
    (trace,) = chart.panels[0].traces
    assert trace.points == (pytest.approx((45.0, 5.0)), pytest.approx((95.0, -5.0)))  # three answers make no point
    assert trace.texts[1] == calibrated("Pre-LN", 0.95, 0.9, 900)
    assert chart.text == calibration_text([(name, 0.031) for name in ("Pre-LN", "Mix-LN", "Post-LN")], FEWEST)


def test_the_figures_of_language_have_neither() -> None:
    assert calibration(samples.usual()) == ()
    assert errors_png(samples.usual()) == {}
    assert pages.ERRORS not in render(samples.usual())


def test_the_page_shows_the_mistakes_and_no_name_becomes_markup(tmp_path) -> None:
    page = render(samples.pictures())
    assert page.count('<img alt="Shirt, ') == 2
    assert "Shirt" in page
    assert samples.HOSTILE not in page.split("<script")[0]
    assert "top-5 accuracy" in page
    names = [path.name for path in write(samples.pictures(), tmp_path)]
    assert names == [
        "results.json", "table.md", "loss.png", "accuracy.png", "calibration.png", "gradients.png", "residual.png", "mistakes.png",
        "report.html",
    ]  # fmt: skip


def test_the_grid_of_mistakes_is_a_picture() -> None:
    (content,) = errors_png(samples.pictures()).values()
    assert Image.open(io.BytesIO(content)).width == 1400


def test_the_first_figures_are_in_their_order() -> None:
    assert [chart.name for chart in prepare(samples.pictures())] == [
        "loss", "accuracy", "calibration", "gradients", "residual"
    ]  # fmt: skip
