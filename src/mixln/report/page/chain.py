"""The section on a chain in the page of a comparison."""

from __future__ import annotations

from html import escape

from mixln.compare.results import Summary
from mixln.report.page.skeleton import closed_pairs, flat, grouped, scroll, section
from mixln.report.tables.chain import grids
from mixln.report.tables.grid import html
from mixln.report.wording import chain, pages


def chain_section(summary: Summary) -> str:
    """The section; empty without a chain."""
    measured = summary.chain
    if measured is None:
        return ""
    tables = [f"<h3>{escape(grid.title)}</h3>\n{scroll(grid.title, html(grid))}" for grid in grids(summary)]
    # The digest of the examples identifies them in the store; readers do not need it.
    settings = {
        step: {name: value for name, value in chosen.items() if name != "examples"}
        for step, chosen in measured.settings.items()
    }
    details = closed_pairs(pages.STEP_SETTINGS, flat(settings))
    return section(pages.chain(measured.steps), grouped({"": chain.notes(summary)}), *tables, details)
