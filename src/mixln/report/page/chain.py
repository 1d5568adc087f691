"""The part of a comparison's page that shows its chain."""

from __future__ import annotations

from markupsafe import Markup

from mixln.compare.results import Summary
from mixln.report.page.skeleton import closed_pairs, flat, grouped, section, titled
from mixln.report.tables.chain import grids
from mixln.report.wording import chain, pages


def chain_section(summary: Summary) -> Markup:
    """The section; empty without a chain."""
    found = summary.chain
    if found is None:
        return Markup()
    # The digest of the examples is for the store, not for readers.
    settings = {
        step: {name: value for name, value in asked.items() if name != "examples"}
        for step, asked in found.settings.items()
    }
    details = closed_pairs(pages.STEP_SETTINGS, flat(settings))
    return section(pages.chain(found.steps), grouped({"": chain.notes(summary)}), *map(titled, grids(summary)), details)
