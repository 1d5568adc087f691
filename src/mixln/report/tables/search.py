"""The tables of a search."""

from __future__ import annotations

import math

from mixln import formats
from mixln.compare.metrics import PERPLEXITY
from mixln.report.tables.grid import TableGrid
from mixln.report.wording import search_report as words
from mixln.report.wording.phrases import Pieces, difference
from mixln.search.results import Finalist, RateResult, Search


def finalists(result: Search) -> TableGrid:
    """The full trainings, the chosen setting first."""
    return TableGrid(
        title=words.FINALISTS,
        head=words.FINALISTS_HEAD,
        rows=tuple(map(_finalist, result.finalists)),
        caption=words.finalists_caption(result.steps),
    )


def rates(result: Search) -> TableGrid:
    """Every learning rate of a full training."""
    return TableGrid(
        title=words.RATES,
        head=words.rates_head(_seeds(result)),
        rows=tuple(
            (
                (finalist.placement,),
                (f"{tried.learning_rate:g}",),
                *((_at(tried, seed),) for seed in _seeds(result)),
            )
            for finalist in result.finalists
            for tried in finalist.tried
        ),
        caption=words.RATES_CAPTION,
    )


def _seeds(result: Search) -> tuple[int, ...]:
    """The seed with which learning rates were tuned, then the others."""
    return tuple(
        dict.fromkeys(seed for finalist in result.finalists for tried in finalist.tried for seed in tried.seeds)
    )


def _at(tried: RateResult, seed: int) -> str:
    if seed not in tried.seeds:
        return formats.NOTHING
    loss = tried.losses[tried.seeds.index(seed)]
    return words.UNTRAINED if loss is None else PERPLEXITY.say_value(loss)


def _finalist(finalist: Finalist) -> tuple[Pieces, ...]:
    cells = ((finalist.placement,), (str(finalist.post_layers),), (f"{finalist.learning_rate:g}",))
    cells = (*cells, (words.seeds(finalist.seeds),))
    if finalist.loss is None:
        return (*cells, (words.SOME_UNTRAINED if finalist.seeds else words.BEHIND,), (formats.NOTHING,))
    interval: Pieces = ()
    if finalist.low is not None and finalist.high is not None:
        interval = (f"[{PERPLEXITY.say_value(finalist.low)}, {PERPLEXITY.say_value(finalist.high)}]",)
    last = (words.CHOSEN,) if finalist.difference is None else difference(PERPLEXITY, finalist.difference)
    return (*cells, (PERPLEXITY.say_value(finalist.loss), *interval), last)


def proxies(result: Search) -> TableGrid:
    """The proxy trials, the best first."""
    ranked = sorted(result.proxies, key=lambda proxy: (proxy.ended == "pruned", proxy.loss or math.inf))
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
