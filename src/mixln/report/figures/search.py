"""The figure of a search."""

from __future__ import annotations

import math
from dataclasses import replace

from mixln.compare.metrics import PERPLEXITY
from mixln.report.figures import axes
from mixln.report.figures.series import Chart, Panel, Trace
from mixln.report.wording import search_report as words
from mixln.report.wording.charts import LEARNING_RATE
from mixln.search.results import Search


def chart(result: Search) -> Chart:
    """Perplexity against the number of Post-LN layers and against the learning rate."""
    shown = [
        (proxy.post_layers, proxy.learning_rate, math.exp(proxy.loss), int(proxy.ended == "pruned"), words.proxy(proxy))
        for proxy in result.proxies
        if proxy.loss is not None
    ]
    shown += [
        (
            finalist.post_layers,
            tried.learning_rate,
            math.exp(loss),
            2,
            words.full(finalist.placement, tried.learning_rate),
        )
        for finalist in result.finalists
        for tried in finalist.tried
        for loss in tried.losses
        if loss is not None
    ]
    y = axes.logarithmic(PERPLEXITY.name, [value for _, _, value, _, _ in shown])
    layers = axes.layers(result.layers)
    counts = replace(layers, label=words.POST_LAYERS, low=-0.4, ticks=((0.0, "0"), *layers.ticks))
    rates = axes.logarithmic(LEARNING_RATE, [rate for _, rate, _, _, _ in shown])
    panels = tuple(
        Panel(
            title="",
            x=x,
            y=y,
            traces=tuple(
                Trace(
                    key=key,
                    role="center" if key == 2 else "dot",
                    label=words.KEYS[key],
                    points=tuple((float(point[column]), point[2]) for point in members),
                    texts=tuple(point[4] for point in members),
                )
                for key in range(len(words.KEYS))
                if (members := sorted(point for point in shown if point[3] == key))
            ),
        )
        for x, column in ((counts, 0), (rates, 1))
    )
    return Chart(
        name="search",
        text=words.tried(result),
        keys=words.KEYS,
        panels=panels if shown else (),
        across=2,
    )
