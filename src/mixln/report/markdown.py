"""Outcomes of recipes in GitHub's Markdown: one recipe, its deviation study, or all recipes in one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from mixln import formats
from mixln.recipes import RECIPES
from mixln.recipes.results import DeviationStudy, Reproduction
from mixln.report.tables.grid import TableGrid, escaped, markdown
from mixln.report.tables.reproduction import changes_beside, differences_beside, numbers_beside, tables
from mixln.report.wording import reproduction as words
from mixln.report.wording.phrases import Pieces


def outcome(
    result: Reproduction,
    name: str = "",
    figures: Mapping[str, str] | None = None,
    elsewhere: Collection[str] = (),
    *,
    terms: bool = True,
) -> str:
    """The outcome of one recipe, `reproduction.md`.

    :param name: name of the recipe, if the document has several outcomes.
    :param figures: file → its title.
    :param elsewhere: captions to omit, because they are elsewhere in the document.
    :param terms: whether to include the terms that the recipe shares with others.
    """
    recipe = words.recipe_of(result)
    grids = (replace(grid, caption="") if grid.caption in elsewhere else grid for grid in tables(result))
    time = words.all_trainings(formats.duration(result.seconds)) if result.trained else ""
    lines = [
        f"## {f'`{name}`: ' if name else ''}{recipe.title}",
        f"{recipe.source}. {recipe.whole_reading if terms else recipe.reading}",
        words.smaller(recipe) if result.scale == "cpu" else "",
        f"```sh\n{result.command}\n```",
        "\n".join(f"- {words.trained(run)}" for run in result.trained),
        f"{words.tally(result)}{time}",
        *(markdown(grid).rstrip() for grid in grids),
        *(f"![{escaped(title)}]({path})" for path, title in (figures or {}).items()),
    ]
    return "\n\n".join(filter(None, lines)) + "\n"


def as_published(study: DeviationStudy, name: str = "") -> str:
    """The outcome of one recipe with the authors' code, `as-published.md`.

    :param name: name of the recipe, if this follows its outcome.
    """
    recipe = words.recipe_of(study)
    trained = [f"- {variant.name}: {words.trained(run)}" for variant in study.varied for run in variant.trained]
    time = formats.duration(sum(variant.seconds for variant in study.varied))
    parts = [
        words.beside_heading(recipe.title, name),
        "" if name else f"{recipe.source}.",
        words.smaller(recipe) if study.scale == "cpu" else "",
        f"```sh\n{study.command}\n```",
        "\n".join(trained),
        words.cost_beside(time, any_trained=bool(trained)),
        *(markdown(table(study)).rstrip() for table in (numbers_beside, differences_beside, changes_beside)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def document(
    outcomes: Mapping[str, Reproduction],
    beside: Mapping[str, DeviationStudy],
    figures: Mapping[str, Mapping[str, str]],
) -> str:
    """All recipes with their outcomes, `docs/papers.md`.

    :param outcomes: name of a recipe → its outcome, for those that were run.
    :param beside: name of a recipe → its deviation study.
    :param figures: name of a recipe → file → its title.
    :raises KeyError: if a record names an unknown quantity, curve or deviation.
    """
    captions = Counter(table.caption for result in outcomes.values() for table in tables(result))
    shared = [caption for caption, times in captions.items() if caption and times > 1]
    terms: dict[str, list[str]] = {}
    parts = []
    for name in (name for name in RECIPES if name in outcomes):
        if recipe_terms := RECIPES[name].terms:
            terms.setdefault(recipe_terms, []).append(f"`{name}`")
        parts.append(outcome(outcomes[name], name, figures.get(name), shared, terms=False))
        if name in beside:
            parts.append(as_published(beside[name], name))
    notes = [
        *(words.in_common(names, common) for common, names in terms.items()),
        *(f"- {caption}" for caption in shared),
    ]
    common = [f"## {words.COMMON}\n", "\n".join(notes), ""] if notes else []
    return "\n".join([words.INTRODUCTION, markdown(_overview(outcomes)), *common, *parts])


def _overview(outcomes: Mapping[str, Reproduction]) -> TableGrid:
    rows = []
    for name, recipe in RECIPES.items():
        title = words.recipe_of(outcomes[name]).title if name in outcomes else recipe.title
        rows.append(((name,), (title,), *_counts(outcomes.get(name))))
    return TableGrid(head=words.OVERVIEW, rows=tuple(rows), words=2, caption=words.OVERVIEW_CAPTION)


def _counts(result: Reproduction | None) -> tuple[Pieces, ...]:
    if result is None:
        return ((formats.NOTHING,),) * 3 + ((words.NOT_RUN,),)
    verdicts = [ordering.verdict for ordering in result.orderings if not ordering.ours]
    held, reversed_ = verdicts.count("held"), verdicts.count("reversed")
    counts = (held, reversed_, len(verdicts) - held - reversed_)
    time = formats.duration(result.seconds) if result.trained else words.NOTHING_TRAINED
    return (*((str(count),) for count in counts), (time,))
