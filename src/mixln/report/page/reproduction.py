"""The page of a recipe's outcome, `report.html`."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import chain

from mixln.recipes.results import DeviationStudy, Reproduction
from mixln.report.figures.reproduction import charts
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed_pairs, page, scroll, section, verdict
from mixln.report.tables import grid
from mixln.report.tables.grid import TableGrid
from mixln.report.tables.reproduction import changes_beside, differences_beside, numbers_beside, tables
from mixln.report.wording import facts, pages
from mixln.report.wording import reproduction as words


def render(found: Reproduction, beside: DeviationStudy | None = None) -> str:
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
            section(pages.RESULTS, *map(_table, tables(found))),
            *([section(pages.FIGURES, *map(figure, drawn))] if drawn else []),
            *([section(pages.AS_PUBLISHED, *map(_table, _beside(beside)))] if beside else []),
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


def _table(made: TableGrid) -> str:
    return f"<h3>{escape(made.title)}</h3>\n{scroll(made.title, grid.html(made))}"
