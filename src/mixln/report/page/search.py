"""The page of a search, `report.html`."""

from __future__ import annotations

from markupsafe import Markup

from mixln.report.figures.search import chart
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed_pairs, flat, page, scroll, section, titled, verdict
from mixln.report.tables import grid
from mixln.report.tables.search import finalists, proxies, rates
from mixln.report.wording import facts, pages, search
from mixln.report.wording.search_report import post_layers
from mixln.search.results import Search


def render(result: Search) -> Markup:
    """The page as HTML."""
    drawn, first, others = chart(result), finalists(result), (rates(result), proxies(result))
    limits = ((post_layers(count), search.limit(rate, count not in result.unknown)) for count, rate in result.limits)
    return page(
        pages.SEARCH,
        body=(
            verdict({"": search.verdict(result)}),
            section(pages.RESULTS, scroll(first.title, grid.html(first))),
            section(pages.FIGURES, figure(drawn)),
            section(
                pages.DETAILS,
                *map(titled, others),
                closed_pairs(pages.RAMPS, limits),
                closed_pairs(pages.SETTINGS, flat(result.settings)),
                closed_pairs(pages.PROVENANCE_AND_DATA, facts.search(result)),
            ),
        ),
        charts=(drawn,),
    )
