"""The section on a chain in the page of a comparison."""

from __future__ import annotations

from markupsafe import Markup

from mixln.compare.results import Summary
from mixln.report.page.skeleton import closed_pairs, flat, grouped, section, titled
from mixln.report.tables.chain import grids
from mixln.report.wording import chain, pages


def chain_section(summary: Summary) -> Markup:
    """The section; empty without a chain."""
    measured = summary.chain
    if measured is None:
        return Markup()
    # The digest of the examples identifies them in the store; readers do not need it.
    settings = {
        step: {name: value for name, value in chosen.items() if name != "examples"}
        for step, chosen in measured.settings.items()
    }
    details = closed_pairs(pages.STEP_SETTINGS, flat(settings))
    return section(
        pages.chain(measured.steps), grouped({"": chain.notes(summary)}), *map(titled, grids(summary)), details
    )
