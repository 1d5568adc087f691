"""How often each expert is chosen, as a heat map of layers and experts."""

from __future__ import annotations

from dataclasses import replace

from mixln.diagnostics.results import Experts
from mixln.report.figures import axes
from mixln.report.figures.axes import Axis
from mixln.report.figures.models import Model, Models
from mixln.report.figures.series import Chart, Heatmap, Panel
from mixln.report.wording import charts as words
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
        x=_whole(texts.EXPERT, max(map(len, use.chosen)), first=0),
        y=_whole(words.LAYER, use.layers[-1], first=1),
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


def _whole(label: str, count: int, *, first: int) -> Axis:
    """An axis of `count` cells at 1, 2, …, of which the first is labelled `first`."""
    axis = axes.layers(count)
    ticks = tuple((place, str(int(place) - 1 + first)) for place, _ in axis.ticks)
    return replace(axis, label=label, low=0.5, high=count + 0.5, ticks=ticks)
