"""What a search found: tables, a figure and a page."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape

from mixln.compare.measure import LANGUAGE
from mixln.report import axes, formats, grid
from mixln.report.embedded import figure
from mixln.report.grid import Grid
from mixln.report.series import Chart, Panel, Trace
from mixln.report.skeleton import closed_pairs, flat, page, scroll, section, verdict
from mixln.report.tables import Pieces
from mixln.search.results import Finalist, Proxy, Search, Tried

KEYS = ("short training, whole", "short training, ended early", "full training, a seed")


def finalists(found: Search) -> Grid:
    """The full trainings, the chosen setting first."""
    return Grid(
        title="Trained in full",
        head=("placement", "Post-LN layers", "learning rate", "seeds", "perplexity", "from the chosen"),
        rows=tuple(map(_finalist, found.finalists)),
        caption=f"{found.steps:,} steps each. Perplexity of the mean held-out loss over the seeds with its 95% interval; differences are "
        "paired by seed. Who has no seeds was not taken further than the tuning of learning rates.",
    )


def rates(found: Search) -> Grid:
    """Every learning rate that was tried in full."""
    return Grid(
        title="Learning rates at the full length",
        head=("placement", "learning rate", *(f"seed {seed}" for seed in _seeds(found))),
        rows=tuple(
            (
                (each.placement,),
                (f"{tried.learning_rate:g}",),
                *((_at(tried, seed),) for seed in _seeds(found)),
            )
            for each in found.finalists
            for tried in each.tried
        ),
        caption="Perplexity. A candidate goes up from the learning rate of its best short training as long as that is better, else "
        "down; where a seed does not train, down.",
    )


def _seeds(found: Search) -> tuple[int, ...]:
    """The one by which learning rates were tuned, then the others."""
    return tuple(dict.fromkeys(seed for each in found.finalists for tried in each.tried for seed in tried.seeds))


def _at(tried: Tried, seed: int) -> str:
    if seed not in tried.seeds:
        return formats.NOTHING
    loss = tried.losses[tried.seeds.index(seed)]
    return "did not train" if loss is None else _shown(loss)


def _finalist(each: Finalist) -> tuple[Pieces, ...]:
    first = ((each.placement,), (str(each.post_layers),), (f"{each.learning_rate:g}",))
    first = (*first, (", ".join(map(str, each.seeds)) or formats.NOTHING,))
    if each.loss is None:
        return (*first, ("not all trained" if each.seeds else "not taken further",), (formats.NOTHING,))
    ends = "" if each.low is None or each.high is None else f"[{_shown(each.low)}, {_shown(each.high)}]"
    said = ("chosen",) if each.difference is None else LANGUAGE.difference(each.difference)
    return (*first, (_shown(each.loss), *([ends] if ends else [])), said)


def _shown(loss: float) -> str:
    return LANGUAGE.text(LANGUAGE.shown(loss))


def shorts(found: Search) -> Grid:
    """The short trainings, the best first."""
    ranked = sorted(found.proxies, key=lambda proxy: (proxy.ended == "pruned", proxy.loss or math.inf))
    return Grid(
        title="Short trainings",
        head=("placement", "ended", "Post-LN layers", "learning rate", "steps", "perplexity"),
        rows=tuple(
            (
                (proxy.placement,),
                (proxy.ended,),
                (str(proxy.post_layers),),
                (f"{proxy.learning_rate:g}",),
                (f"{proxy.steps:,}",),
                (formats.NOTHING if proxy.loss is None else _shown(proxy.loss),),
            )
            for proxy in ranked
        ),
        words=2,
    )


def chart(found: Search) -> Chart:
    """Perplexity against the number of Post-LN layers and against the learning rate."""
    shown = [
        (proxy.post_layers, proxy.learning_rate, math.exp(proxy.loss), int(proxy.ended == "pruned"), _label(proxy))
        for proxy in found.proxies
        if proxy.loss is not None
    ]
    shown += [
        (each.post_layers, tried.learning_rate, math.exp(loss), 2, f"{each.placement} at {tried.learning_rate:g}")
        for each in found.finalists
        for tried in each.tried
        for loss in tried.losses
        if loss is not None
    ]
    y = axes.logarithmic("perplexity", [value for _, _, value, _, _ in shown])
    layers = axes.layers(found.layers)
    counts = replace(layers, label="Post-LN layers", low=-0.4, ticks=((0.0, "0"), *layers.ticks))
    rates = axes.logarithmic("learning rate", [rate for _, rate, _, _, _ in shown])
    panels = tuple(
        Panel(
            title="",
            x=x,
            y=y,
            traces=tuple(
                Trace(
                    key=key,
                    role="center" if key == 2 else "dot",
                    label=KEYS[key],
                    points=tuple((float(point[column]), point[2]) for point in members),
                    texts=tuple(point[4] for point in members),
                )
                for key in range(len(KEYS))
                if (members := sorted(point for point in shown if point[3] == key))
            ),
        )
        for x, column in ((counts, 0), (rates, 1))
    )
    return Chart(
        name="search",
        title="What was tried",
        caption="Held-out perplexity, on a logarithmic axis, of every short training that did not diverge and every full one that trained; "
        "lower is better. They differ in length, and those that were ended early are higher for that alone.",
        description=" ".join(found.verdict),
        keys=KEYS,
        panels=panels if shown else (),
        across=2,
    )


def _label(proxy: Proxy) -> str:
    return f"{proxy.placement} at {proxy.learning_rate:g}: {proxy.ended}, {proxy.steps:,} steps"


def render(found: Search) -> str:
    """The page as HTML."""
    drawn = chart(found)
    tables = [finalists(found), rates(found), shorts(found)]
    limits = [
        (
            f"{count} Post-LN layers",
            f"not known: never below the unigram model; least loss at {rate:.2g}"
            if count in found.unknown
            else f"trains up to {rate:.2g}",
        )
        for count, rate in found.limits
    ]
    return page(
        title="mixln tune",
        heading="Share of Post-LN layers and learning rate",
        body=(
            verdict({"": found.verdict}),
            section("Results", scroll(tables[0].title, grid.html(tables[0]))),
            section("Figures", figure(drawn)),
            section(
                "Details",
                *(f"<h3>{escape(table.title)}</h3>\n{scroll(table.title, grid.html(table))}" for table in tables[1:]),
                closed_pairs("Ramps", limits),
                closed_pairs("Settings", flat(found.settings)),
                closed_pairs("Versions, machine and data", found.facts.items()),
            ),
        ),
        footer="Written by <code>mixln tune</code>. The same numbers are in <code>tune.json</code>, the tables in <code>tune.md</code>.",
        charts=(drawn,),
    )
