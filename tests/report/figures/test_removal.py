"""Figures of single branches and of experts."""

from mixln.report.figures import png as figures
from mixln.report.figures.drops import sublayer_drops
from mixln.report.figures.experts import expert_use
from mixln.report.figures.models import models_of
from mixln.report.wording import diagnosis_charts as texts
from mixln.report.wording import removal
from tests.report import diagnosis_samples as samples


def test_a_panel_for_each_branch_beside_the_whole_layer() -> None:
    (model,) = samples.complete().models
    chart = sublayer_drops(models_of([model, samples.model("without")]))
    assert [panel.title for panel in chart.panels] == ["OLMoE: attention", "OLMoE: feed-forward"]
    assert model.drops is not None
    for panel, drops in zip(chart.panels, (model.drops.attention, model.drops.feed_forward), strict=True):
        bars, _, circles = panel.traces
        assert bars.points == tuple((float(drop.first), drop.change) for drop in drops)
        assert circles.points == tuple((float(drop.first), drop.change) for drop in model.drops.skipped)
        assert circles.label == texts.whole_layer("OLMoE")
    assert chart.panels[0].y == chart.panels[1].y
    assert figures.png(chart).startswith(b"\x89PNG")
    assert sublayer_drops(models_of([samples.model("without")])).panels == ()


def test_a_row_for_each_layer_even_without_experts() -> None:
    chart = expert_use(models_of(samples.complete().models))
    (panel,) = chart.panels
    assert panel.heat is not None
    use = samples.experts()
    assert panel.heat.values == (use.chosen[0], use.chosen[1], (), use.chosen[2])
    assert panel.heat.texts[1][3] == removal.experts_cell(2, 3, 0.0, None)
    assert panel.heat.scale.high >= 1
    assert [text for _, text in panel.x.ticks] == ["0", "1", "2", "3"]
    assert figures.png(chart).startswith(b"\x89PNG")
    assert expert_use(models_of([samples.model("without")])).panels == ()
