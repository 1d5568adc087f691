"""The tables of a search."""

from __future__ import annotations

import math

from mixln import formats
from mixln.compare.metrics import PERPLEXITY
from mixln.report.tables.grid import TableGrid
from mixln.report.wording import search_report as words
from mixln.report.wording.phrases import Pieces, difference
from mixln.search.results import Finalist, RateResult, Search


def finalists(found: Search) -> TableGrid:
    """The full trainings, the chosen setting first."""
    return TableGrid(
        title=words.FINALISTS,
        head=words.FINALISTS_HEAD,
        rows=tuple(map(_finalist, found.finalists)),
        caption=words.finalists_caption(found.steps),
    )


def rates(found: Search) -> TableGrid:
    """Every learning rate that was tried in full."""
    return TableGrid(
        title=words.RATES,
        head=words.rates_head(_seeds(found)),
        rows=tuple(
            (
                (each.placement,),
                (f"{tried.learning_rate:g}",),
                *((_at(tried, seed),) for seed in _seeds(found)),
            )
            for each in found.finalists
            for tried in each.tried
        ),
        caption=words.RATES_CAPTION,
    )


def _seeds(found: Search) -> tuple[int, ...]:
    """The one by which learning rates were tuned, then the others."""
    return tuple(dict.fromkeys(seed for each in found.finalists for tried in each.tried for seed in tried.seeds))


def _at(tried: RateResult, seed: int) -> str:
    if seed not in tried.seeds:
        return formats.NOTHING
    loss = tried.losses[tried.seeds.index(seed)]
    return words.UNTRAINED if loss is None else PERPLEXITY.say_value(loss)


def _finalist(each: Finalist) -> tuple[Pieces, ...]:
    first = ((each.placement,), (str(each.post_layers),), (f"{each.learning_rate:g}",))
    first = (*first, (words.seeds(each.seeds),))
    if each.loss is None:
        return (*first, (words.SOME_UNTRAINED if each.seeds else words.BEHIND,), (formats.NOTHING,))
    ends = (
        ""
        if each.low is None or each.high is None
        else f"[{PERPLEXITY.say_value(each.low)}, {PERPLEXITY.say_value(each.high)}]"
    )
    said = (words.CHOSEN,) if each.difference is None else difference(PERPLEXITY, each.difference)
    return (*first, (PERPLEXITY.say_value(each.loss), *([ends] if ends else [])), said)


def proxies(found: Search) -> TableGrid:
    """The proxy trials, the best first."""
    ranked = sorted(found.proxies, key=lambda proxy: (proxy.ended == "pruned", proxy.loss or math.inf))
    return TableGrid(
        title=words.PROXIES,
        head=words.PROXIES_HEAD,
        rows=tuple(
            (
                (proxy.placement,),
                (proxy.ended,),
                (str(proxy.post_layers),),
                (f"{proxy.learning_rate:g}",),
                (f"{proxy.steps:,}",),
                (PERPLEXITY.say_value(proxy.loss),),
            )
            for proxy in ranked
        ),
        words=2,
    )
