import io
import re

import pytest
from PIL import Image

from mixln.report.figures import comparison as charts
from mixln.report.figures import interactive
from mixln.report.figures import png as figures
from mixln.report.figures.styles import style
from tests.report import samples

EVERY = (samples.usual, samples.one_seed, samples.several_rates, samples.eight, samples.hostile)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


@pytest.mark.long
@pytest.mark.parametrize("make", EVERY)
def test_pngs_show_every_placement_in_its_colour(make) -> None:
    for chart in charts.prepare(make()):
        image = Image.open(io.BytesIO(figures.png(chart))).convert("RGB")
        assert image.width == 1400
        assert 400 <= image.height <= 1800
        below_the_legend = image.crop((0, 125, image.width, image.height))
        counts = {colour: count for count, colour in below_the_legend.getcolors(1 << 24)}
        inked = 1 - counts[255, 255, 255] / (image.width * (image.height - 125))
        assert 0.01 < inked < 0.5
        for key in range(len(chart.keys)):
            assert counts.get(rgb(style(key).colour), 0) > 60


def test_a_png_without_data_says_so() -> None:
    image = Image.open(io.BytesIO(figures.png(charts.loss(samples.bare()))))
    assert image.width == 1400
    assert image.height < 300
    assert len(image.convert("L").getcolors()) > 10


def test_plotly_draws_the_same_points() -> None:
    for chart in charts.prepare(samples.several_rates()):
        for panel in chart.panels:
            drawn = interactive.plotly_figure(panel).data
            assert len(drawn) == len(panel.traces) + (panel.reference is not None)
            for trace, scatter in zip(panel.traces, drawn, strict=False):
                assert list(scatter.x) == trace.x
                assert list(scatter.y) == trace.y
                assert scatter.meta == trace.key


def test_plotly_gets_names_without_tags_or_formulas() -> None:
    for chart in charts.prepare(samples.hostile()):
        for panel in chart.panels:
            text = interactive.plotly_figure(panel).to_json().replace("\\u003c", "<").replace("\\u003e", ">")
            assert set(re.findall(r"<[^>]*>", text)) <= {"<b>", "<br>", "<extra>", "<\\u002fb>", "<\\u002fextra>"}
            assert "&lt;" in text or chart.name in ("gradients", "residual")
            assert "$" not in text
