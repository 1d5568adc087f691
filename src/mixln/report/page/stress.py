"""The page of a stress test, `report.html`."""

from __future__ import annotations

from markupsafe import Markup

from mixln.report.figures.stress import charts
from mixln.report.names import plain
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed_pairs, flat, page, scroll, section, verdict
from mixln.report.tables import grid
from mixln.report.tables.stress import table
from mixln.report.wording import facts, pages, stress
from mixln.report.wording.search_report import ramp_name
from mixln.search.results import Stress


def render(result: Stress) -> Markup:
    """The page as HTML."""
    names = ", ".join(dict.fromkeys(plain(limit.title) for limit in result.limits))
    drawn, rows = charts(result), table(result)
    words = pages.stress(names)
    return page(
        words,
        body=(
            verdict({"": stress.verdict(result)}),
            section(pages.RESULTS, scroll(rows.title, grid.html(rows))),
            section(pages.FIGURES, *map(figure, drawn)),
            section(
                pages.DETAILS,
                closed_pairs(pages.EVERY_RAMP, ((ramp_name(ramp), stress.ramp(ramp)) for ramp in result.ramps)),
                closed_pairs(pages.SETTINGS, flat(result.settings)),
                closed_pairs(pages.PROVENANCE_AND_DATA, facts.search(result)),
            ),
        ),
        charts=drawn,
    )
