"""The page of a recipe's outcome, `report.html`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from markupsafe import Markup

from mixln.recipes.results import DeviationStudy, Reproduction
from mixln.report.figures.reproduction import charts
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed_pairs, page, section, titled, verdict
from mixln.report.tables.grid import TableGrid
from mixln.report.tables.reproduction import changes_beside, differences_beside, numbers_beside, tables
from mixln.report.wording import facts, pages
from mixln.report.wording import reproduction as words


def render(found: Reproduction, beside: DeviationStudy | None = None) -> Markup:
    """The page as HTML.

    :param beside: the same with the authors' code.
    """
    drawn, recipe = charts(found), words.recipe_of(found)
    trained = (words.trained(run).partition(": ") for run in found.trained)
    provenance = chain.from_iterable(map(facts.provenance, found.provenance))
    return page(
        pages.reproduction(found, recipe.title),
        body=(
            verdict({"": (words.tally(found), *_scale(found))}),
            section(pages.RESULTS, *map(titled, tables(found))),
            *([section(pages.FIGURES, *map(figure, drawn))] if drawn else []),
            *([section(pages.AS_PUBLISHED, *map(titled, _beside(beside)))] if beside else []),
            section(
                pages.DETAILS,
                closed_pairs(pages.READING, [(recipe.source, recipe.whole_reading)]),
                closed_pairs(pages.TRAINED, [(run, settings) for run, _, settings in trained]),
                closed_pairs(pages.PROVENANCE, provenance),
            ),
        ),
        charts=drawn,
    )


def _scale(found: Reproduction) -> Iterator[str]:
    if found.scale == "cpu":
        yield words.smaller(words.recipe_of(found))
    if found.smaller:
        yield words.SMALL_MODELS


def _beside(found: DeviationStudy) -> tuple[TableGrid, ...]:
    return (numbers_beside(found), differences_beside(found), changes_beside(found))
