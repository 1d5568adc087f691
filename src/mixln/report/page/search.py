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


def render(found: Search) -> Markup:
    """The page as HTML."""
    drawn, first, others = chart(found), finalists(found), (rates(found), proxies(found))
    limits = ((post_layers(count), search.limit(rate, count not in found.unknown)) for count, rate in found.limits)
    return page(
        pages.SEARCH,
        body=(
            verdict({"": search.verdict(found)}),
            section(pages.RESULTS, scroll(first.title, grid.html(first))),
            section(pages.FIGURES, figure(drawn)),
            section(
                pages.DETAILS,
                *map(titled, others),
                closed_pairs(pages.RAMPS, limits),
                closed_pairs(pages.SETTINGS, flat(found.settings)),
                closed_pairs(pages.PROVENANCE_AND_DATA, facts.search(found)),
            ),
        ),
        charts=(drawn,),
    )
