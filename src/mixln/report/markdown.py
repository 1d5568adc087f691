"""Outcomes of recipes in GitHub's Markdown: one, the same with the authors' code, and all of them in one document."""

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
    found: Reproduction,
    name: str = "",
    figures: Mapping[str, str] | None = None,
    elsewhere: Collection[str] = (),
    *,
    terms: bool = True,
) -> str:
    """One outcome; `reproduction.md`.

    :param name: of the recipe, if several outcomes follow each other.
    :param figures: file → its title.
    :param elsewhere: captions that stand elsewhere and are left out.
    :param terms: whether what the recipe has in common with others is said here.
    """
    recipe = words.recipe_of(found)
    grids = (replace(each, caption="") if each.caption in elsewhere else each for each in tables(found))
    time = words.all_trainings(formats.duration(found.seconds)) if found.trained else ""
    lines = [
        f"## {f'`{name}`: ' if name else ''}{recipe.title}",
        f"{recipe.source}. {recipe.whole_reading if terms else recipe.reading}",
        words.smaller(recipe) if found.scale == "cpu" else "",
        f"```sh\n{found.command}\n```",
        "\n".join(f"- {words.trained(run)}" for run in found.trained),
        f"{words.tally(found)}{time}",
        *(markdown(each).rstrip() for each in grids),
        *(f"![{escaped(title)}]({path})" for path, title in (figures or {}).items()),
    ]
    return "\n\n".join(filter(None, lines)) + "\n"


def as_published(found: DeviationStudy, name: str = "") -> str:
    """One outcome with the authors' code; `as-published.md`.

    :param name: of the recipe, if this follows the recipe's own outcome.
    """
    recipe = words.recipe_of(found)
    trained = [f"- {each.name}: {words.trained(run)}" for each in found.varied for run in each.trained]
    time = formats.duration(sum(each.seconds for each in found.varied))
    parts = [
        words.beside_heading(recipe.title, name),
        "" if name else f"{recipe.source}.",
        words.smaller(recipe) if found.scale == "cpu" else "",
        f"```sh\n{found.command}\n```",
        "\n".join(trained),
        words.cost_beside(time, any_trained=bool(trained)),
        *(markdown(table(found)).rstrip() for table in (numbers_beside, differences_beside, changes_beside)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def document(
    found: Mapping[str, Reproduction],
    beside: Mapping[str, DeviationStudy],
    figures: Mapping[str, Mapping[str, str]],
) -> str:
    """All recipes with their outcomes; `docs/papers.md`.

    :param found: recipe's name → its outcome, of those that were run.
    :param beside: recipe's name → that with the authors' code.
    :param figures: recipe's name → file → its title.
    :raises KeyError: if an outcome names a quantity, a curve or a deviation that is not known.
    """
    captions = Counter(table.caption for each in found.values() for table in tables(each))
    shared = [caption for caption, times in captions.items() if caption and times > 1]
    terms: dict[str, list[str]] = {}
    parts = []
    for name in (name for name in RECIPES if name in found):
        if recipe_terms := RECIPES[name].terms:
            terms.setdefault(recipe_terms, []).append(f"`{name}`")
        parts.append(outcome(found[name], name, figures.get(name), shared, terms=False))
        if name in beside:
            parts.append(as_published(beside[name], name))
    notes = [
        *(words.in_common(names, common) for common, names in terms.items()),
        *(f"- {caption}" for caption in shared),
    ]
    common = [f"## {words.COMMON}\n", "\n".join(notes), ""] if notes else []
    return "\n".join([words.INTRODUCTION, markdown(_overview(found)), *common, *parts])


def _overview(found: Mapping[str, Reproduction]) -> TableGrid:
    rows = []
    for name, recipe in RECIPES.items():
        title = words.recipe_of(found[name]).title if name in found else recipe.title
        rows.append(((name,), (title,), *_counts(found.get(name))))
    return TableGrid(head=words.OVERVIEW, rows=tuple(rows), words=2, caption=words.OVERVIEW_CAPTION)


def _counts(found: Reproduction | None) -> tuple[Pieces, ...]:
    if found is None:
        return ((formats.NOTHING,),) * 3 + ((words.NOT_RUN,),)
    verdicts = [each.verdict for each in found.orderings if not each.ours]
    held, turned = verdicts.count("held"), verdicts.count("reversed")
    counts = (held, turned, len(verdicts) - held - turned)
    time = formats.duration(found.seconds) if found.trained else words.NOTHING_TRAINED
    return (*((str(count),) for count in counts), (time,))
