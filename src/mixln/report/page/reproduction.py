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


def render(outcome: Reproduction, beside: DeviationStudy | None = None) -> Markup:
    """The page as HTML.

    :param beside: the deviation study with the authors' code.
    """
    drawn, recipe = charts(outcome), words.recipe_of(outcome)
    trained = (words.trained(run).partition(": ") for run in outcome.trained)
    provenance = chain.from_iterable(map(facts.provenance, outcome.provenance))
    return page(
        pages.reproduction(outcome, recipe.title),
        body=(
            verdict({"": (words.tally(outcome), *_scale(outcome))}),
            section(pages.RESULTS, *map(titled, tables(outcome))),
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


def _scale(outcome: Reproduction) -> Iterator[str]:
    if outcome.scale == "cpu":
        yield words.smaller(words.recipe_of(outcome))
    if outcome.smaller:
        yield words.SMALL_MODELS


def _beside(study: DeviationStudy) -> tuple[TableGrid, ...]:
    return (numbers_beside(study), differences_beside(study), changes_beside(study))
