"""What became of all recipes, as one document: `docs/papers.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from mixln.compare import words
from mixln.recipes.records import Recipe
from mixln.recipes.results import AsPublished, Reproduction
from mixln.report.grid import Grid, markdown
from mixln.report.reproduction import tables, text, text_beside
from mixln.report.tables import Pieces

INTRODUCTION = """# What the papers published, and what came out here

Written by `mixln reproduce --document docs/papers` from the files that `mixln reproduce NAME` left (`reproduction.json`). Every recipe
has two scales: `--scale paper` has the paper's sizes, data and steps, prints what it will take, and needs GPUs; `--scale cpu`, the
default, is made smaller by the factors that are named, and was run on two cores. Models that small, trained that briefly, say nothing
certain about large ones: what is compared is who is ahead of whom, with 95% confidence intervals over seeds. Two trainings ran side by
side, so that a recipe took about half of the time of its trainings, and less where another had made some of them before. A recipe without
an outcome has not been run yet. Not among them: the Mix-LN paper's Figure 1, which is a drawing, and of HybridNorm its figures and all
tables but the five that are named. `mixln reproduce --list` names all; `--as-published` does, one by one, what the authors' code does
otherwise, and says what of a difference each makes (`as-published.json`).
"""


def document(
    recipes: Mapping[str, Recipe],
    found: Mapping[str, Reproduction],
    beside: Mapping[str, AsPublished],
    figures: Mapping[str, Mapping[str, str]],
) -> str:
    """All recipes with what became of them, in GitHub's Markdown; `docs/papers.md`.

    :param found: recipe's name → its outcome, of those that were run.
    :param beside: recipe's name → that as the authors' code does.
    :param figures: recipe's name → file → what it shows.
    """
    overview = Grid(
        head=(
            "recipe",
            "what it is",
            "orderings of the paper that held",
            "that did not",
            "undecided",
            "all trainings, one after the other",
        ),
        rows=tuple(
            ((name,), (found.get(name, recipe).title,), *_counts(found.get(name))) for name, recipe in recipes.items()
        ),
        words=2,
        caption="Undecided: the 95% interval includes zero, some seeds did not train, both sides guess, or there are no seeds to tell "
        "noise from.",
    )
    captions = Counter(each.caption for outcome in found.values() for each in tables(outcome))
    said = [caption for caption, times in captions.items() if caption and times > 1]
    terms: dict[str, list[str]] = {}
    parts = []
    for name in (name for name in recipes if name in found):
        outcome, recipe = found[name], recipes[name]
        if recipe.terms and outcome.reading == recipe.whole_reading:  # else it was read otherwise when it was run
            terms.setdefault(recipe.terms, []).append(f"`{name}`")
            outcome = replace(outcome, reading=recipe.reading)
        parts.append(text(outcome, name, figures.get(name), said))
        if name in beside:
            parts.append(text_beside(beside[name], name))
    notes = [
        *(f"- {', '.join(names)}: {common}" for common, names in terms.items()),
        *(f"- {caption}" for caption in said),
    ]
    common = ["## What is common to several\n", "\n".join(notes), ""] if notes else []
    return "\n".join([INTRODUCTION, markdown(overview), *common, *parts])


def _counts(found: Reproduction | None) -> tuple[Pieces, ...]:
    if found is None:
        return ((words.NOTHING,),) * 3 + (("not run yet",),)
    verdicts = [each.verdict for each in found.orderings if not each.ours]
    held, not_held = verdicts.count("held"), verdicts.count("did not hold")
    counts = (held, not_held, len(verdicts) - held - not_held)
    time = words.duration(found.seconds) if found.settings else "nothing is trained"
    return (*((str(count),) for count in counts), (time,))
