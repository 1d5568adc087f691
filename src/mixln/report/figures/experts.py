"""How often each expert is chosen, as a heat map of layers and experts."""

from __future__ import annotations

from dataclasses import replace

from mixln.diagnostics.results import Experts
from mixln.report.figures import axes
from mixln.report.figures.axes import Axis
from mixln.report.figures.models import Model, Models
from mixln.report.figures.series import Chart, Heatmap, Panel
from mixln.report.wording import removal as texts


def expert_use(models: Models) -> Chart:
    """A map for each model with experts, all with the same colour scale."""
    known = [(model, use) for model in models if (use := model.diagnosis.experts)]
    scale = axes.from_zero(texts.SHARE_OF_TOKENS, (share for _, use in known for row in use.chosen for share in row))
    return Chart(
        name="experts",
        text=texts.experts([(model.name, use) for model, use in known]),
        keys=(),
        panels=tuple(_panel(model, use, scale) for model, use in known),
        across=1,
    )


def _panel(model: Model, use: Experts, scale: Axis) -> Panel:
    shares = dict(zip(use.layers, use.chosen, strict=True))
    weights = dict(zip(use.layers, use.weight, strict=True))
    layers = range(1, use.layers[-1] + 1)
    return Panel(
        title=model.name,
        x=_experts(max(map(len, use.chosen))),
        y=replace(axes.layers(use.layers[-1]), low=0.5, high=use.layers[-1] + 0.5),
        traces=(),
        heat=Heatmap(
            values=tuple(shares.get(layer, ()) for layer in layers),
            texts=tuple(
                tuple(
                    texts.experts_cell(layer, expert, share, weight)
                    for expert, (share, weight) in enumerate(
                        zip(shares.get(layer, ()), weights.get(layer, ()), strict=True)
                    )
                )
                for layer in layers
            ),
            scale=scale,
        ),
        key=model.key,
    )


def _experts(count: int) -> Axis:
    """An axis of the cells 1, 2, …, which are labelled 0, 1, …"""
    places = axes.layers(count).ticks
    step = places[0][0]
    ticks = tuple((place - step + 1, str(int(place - step))) for place, _ in places)
    return Axis(label=texts.EXPERT, low=0.5, high=count + 0.5, ticks=ticks)
