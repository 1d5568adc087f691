"""What became of a recipe, as tables: our numbers beside the published ones, and the orderings."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from mixln.compare import words
from mixln.compare.results import Interval
from mixln.recipes.quantities import QUANTITIES
from mixln.recipes.records import Place
from mixln.recipes.results import AsPublished, Effect, Measured, Ordering, Reproduction, Swept, Varied, Verdict
from mixln.report.grid import Grid, markdown
from mixln.report.tables import Pieces, escaped

WORDS: dict[Verdict, tuple[str, str]] = {
    "held": ("held", "held"),
    "did not hold": ("did not hold", "did not hold"),
    "undecided": ("these seeds do not tell", "stayed undecided"),
    "guesses": ("both guess", "are of models that guess"),
    "one of a kind": ("no seeds to tell noise from", "had no seeds to tell noise from"),
    "failed": ("a training failed", "failed"),
    "not measured": ("not measured at this scale", ""),
}
"""Verdict → what is said of one ordering, and of so many."""


def numbers(found: Reproduction) -> Grid:
    """Published beside measured."""
    if not found.settings:
        return _counted(found)
    several = len({each.quantity for each in found.measured}) > 1
    head = ("model", "placement", *(("quantity",) if several else ()), "published", "measured, 95% interval", "trained")
    (only,) = {each.quantity for each in found.measured} if not several and found.measured else ("",)
    return Grid(
        title=f"{only.capitalize()}: published and measured" if only else "Published and measured",
        head=head,
        rows=tuple(
            (
                (each.run,),
                (each.placement,),
                *(((each.quantity,),) if several else ()),
                (_published(each),),
                _interval(each),
                (f"{each.trained} of {each.seeds}" if each.seeds else words.NOTHING,),
            )
            for each in found.measured
        ),
        words=len(head) - 3,
        caption="Sizes and data differ from the paper's at the small scale: orders can be compared, numbers cannot. Trained: seeds that "
        "neither diverged nor stalled. Where only some trained, the mean is over those; where none did, over those that stalled.",
    )


def _counted(found: Reproduction) -> Grid:
    """Of models that are counted, or exist and are diagnosed: nothing is trained, and there are no seeds."""
    return Grid(
        title="Published, and found here",
        head=("model", "quantity", "published", "here"),
        rows=tuple(((each.run,), (each.quantity,), (_published(each),), _interval(each)) for each in found.measured),
        words=2,
    )


def orders(found: Reproduction) -> Grid:
    """Every ordering of the paper, and whether it held."""
    sides = Sides.of(found.orderings)
    trained = _survivors(found.measured)
    return Grid(
        title=f"Did the paper's order hold{sides.by}?",
        head=(*sides.head, "outcome", "measured, 95% interval", "seeds", "published"),
        rows=tuple(
            (
                *sides.cells(each),
                (f"{WORDS[each.verdict][0]}{' (our question)' if each.ours else ''}",),
                _survived(each, trained) or _change(each.quantity, each.difference),
                (words.NOTHING if each.difference is None else str(each.difference.pairs),),
                (QUANTITIES[each.quantity].say_published(each.published),),
            )
            for each in found.orderings
        ),
        words=len(sides.head) + 1,
        caption="Measured, published: the difference of the first from the second; ours is paired by seed. Seeds: of which both are known. "
        "By perplexity and accuracy, who trained at all seeds is ahead of who trained at none, and where some did not, the seeds do not "
        "tell; what layers contribute is taken of models that trained.",
    )


Survivors = Mapping[tuple[str, str, str], tuple[int, int]]
"""Quantity, run and placement → how many seeds trained, of how many."""


def _survivors(measured: Iterable[Measured]) -> Survivors:
    return {_at(each): (each.trained, each.seeds) for each in measured}


def _survived(each: Ordering, trained: Survivors) -> Pieces:
    """How many seeds trained of either side, where not all did; a difference would compare what learnt with what did not."""
    if QUANTITIES[each.quantity].seeds != "survival":
        return ()
    sides = [trained.get((each.quantity, *place), (0, 0)) for place in (each.ahead, each.behind)]
    if all(count == seeds for count, seeds in sides):  # also where it is not known
        return ()
    said = [f"{count} of {seeds}" for count, seeds in sides]
    return (f"{said[0]} trained", f"against {said[1]}")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The columns that say which ordering it is.

    :param run: whether the first side is named with its run.
    :param quantity: the only one, by which all are ordered; empty where there are several.
    """

    run: bool
    quantity: str

    @classmethod
    def of(cls, orderings: Sequence[Ordering]) -> Sides:
        quantities = {each.quantity for each in orderings}
        runs = {place[0] for each in orderings for place in (each.ahead, each.behind)}
        return cls(run=len(runs) > 1, quantity=quantities.pop() if len(quantities) == 1 else "")

    @property
    def by(self) -> str:
        """What all are ordered by, for a title."""
        return f", by {self.quantity}" if self.quantity else ""

    @property
    def head(self) -> tuple[str, ...]:
        return ("the paper has", "ahead of", *(() if self.quantity else ("by",)))

    def cells(self, each: Ordering) -> tuple[Pieces, ...]:
        by = () if self.quantity else ((each.quantity,),)
        return ((_place(each.ahead, each.behind, self.run),), (_place(each.behind, each.ahead, False),), *by)


PAPER = "as the paper says"


def numbers_beside(found: AsPublished) -> Grid:
    """What was measured as the paper says, and as the authors' code does."""
    columns = {PAPER: found.measured, **{each.name: each.measured for each in found.varied}}
    cells = {(name, *_at(each)): each for name, measured in columns.items() for each in measured}
    rows = dict.fromkeys(_at(each) for measured in columns.values() for each in measured if each.seeds)
    several = len({quantity for quantity, _, _ in rows}) > 1
    return Grid(
        title="Measured, as the paper says and as the authors' code does",
        head=("model", "placement", *(("quantity",) if several else ()), *columns),
        rows=tuple(
            (
                (run,),
                (placement,),
                *(((quantity,),) if several else ()),
                *(_trained(cells.get((name, quantity, run, placement))) for name in columns),
            )
            for quantity, run, placement in rows
        ),
        words=2 + several,
        caption=f"{'; '.join(f'{each.name}: {each.what}' for each in found.varied)}. 95% intervals; in brackets how many seeds neither "
        "diverged nor stalled, where not all.",
    )


def _at(each: Measured) -> tuple[str, str, str]:
    return each.quantity, each.run, each.placement


def _trained(each: Measured | None) -> Pieces:
    if each is None:
        return (words.NOTHING,)
    return (*_interval(each), *([f"({each.trained} of {each.seeds})"] if each.trained < each.seeds else []))


def differences_beside(found: AsPublished) -> Grid:
    """The differences that the paper published, as it says and as the authors' code does."""
    sides, trained = Sides.of(found.orderings), _survivors(found.measured)
    return Grid(
        title=f"What becomes of the differences{sides.by}",
        head=(*sides.head, "published", PAPER, *(each.name for each in found.varied)),
        rows=tuple(
            (
                *sides.cells(plain),
                (QUANTITIES[plain.quantity].say_published(plain.published),),
                _became(plain, trained),
                *(_became(effect.ordering, _survivors(varied.measured)) for varied, effect in _effects(found, plain)),
            )
            for plain in found.orderings
        ),
        words=len(sides.head),
        caption="Differences of the first from the second, paired by seed, with 95% intervals, and what becomes of the paper's order; "
        "where not all seeds trained, how many did.",
    )


def changes_beside(found: AsPublished) -> Grid:
    """By how much each thing that the authors' code does otherwise changes those differences."""
    sides, trained = Sides.of(found.orderings), _survivors(found.measured)

    def change(plain: Ordering, varied: Varied, effect: Effect) -> Pieces:
        if _survived(plain, trained) or _survived(effect.ordering, _survivors(varied.measured)):
            return (words.NOTHING,)
        return _change(plain.quantity, effect.change)

    return Grid(
        title=f"By how much that changes them{sides.by}",
        head=(*sides.head, *(each.name for each in found.varied)),
        rows=tuple(
            (*sides.cells(plain), *(change(plain, varied, effect) for varied, effect in _effects(found, plain)))
            for plain in found.orderings
        ),
        words=len(sides.head),
        caption="The difference less that of the recipe as the paper says, paired by seed, with 95% intervals. Of perplexities both are "
        "taken of their logarithms, so that from −50% to −20% is +60%: 0.8 is 1.6 times 0.5. None where some seeds did not train.",
    )


def _became(each: Ordering, trained: Survivors) -> Pieces:
    """Difference and outcome."""
    return *(_survived(each, trained) or _change(each.quantity, each.difference)), each.verdict


def _effects(found: AsPublished, plain: Ordering) -> list[tuple[Varied, Effect]]:
    """What each variant makes of one ordering."""
    claim = (plain.quantity, plain.ahead, plain.behind)
    return [
        (each, effect)
        for each in found.varied
        for effect in each.effects
        if (effect.ordering.quantity, effect.ordering.ahead, effect.ordering.behind) == claim
    ]


def text_beside(found: AsPublished, name: str = "") -> str:
    """All of it in GitHub's Markdown; `as-published.md`.

    :param name: of the recipe, where it stands below the recipe's own text.
    """
    trained = [f"- {each.name}: {line}" for each in found.varied for line in each.settings]
    time = words.duration(sum(each.seconds for each in found.varied))
    parts = [
        f"### `{name}` as published: {found.title}" if name else f"## As published: {found.title}",
        *([] if name else [f"{found.source}."]),
        *([f"Made smaller: {found.scaled}."] if found.scale == "cpu" else []),
        f"```sh\n{found.command}\n```",
        "\n".join(trained),
        f"What was trained for it took {time}." if trained else "Nothing was trained for it.",
        markdown(numbers_beside(found)).rstrip(),
        markdown(differences_beside(found)).rstrip(),
        markdown(changes_beside(found)).rstrip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sweeps(found: Reproduction) -> tuple[Grid, ...]:
    """Of each run with several learning rates, the perplexity by placement and learning rate."""
    tables = []
    for run in dict.fromkeys(each.run for each in found.swept):
        mine = [each for each in found.swept if each.run == run]
        rates = sorted({each.learning_rate for each in mine})
        cells = {(each.placement, each.learning_rate): each for each in mine}
        tables.append(
            Grid(
                title=f"{run}: perplexity by learning rate",
                head=("placement", *(f"{rate:g}" for rate in rates)),
                rows=tuple(
                    ((placement,), *((_cell(cells.get((placement, rate))),) for rate in rates))
                    for placement in dict.fromkeys(each.placement for each in mine)
                ),
                caption="Perplexity is e to the power of the mean held-out loss over the seeds that trained; in brackets how many did, "
                "where not all. Where none did, the mean is over those that stalled. Above, each placement is at its best learning rate.",
            )
        )
    return tuple(tables)


def _cell(each: Swept | None) -> str:
    if each is None:
        return words.NOTHING
    if not each.counted:
        return "diverged"
    shown = words.perplexity(math.exp(mean(each.counted)))
    return shown if each.trained == len(each.losses) else f"{shown} ({each.trained} of {len(each.losses)})"


def tally(found: Reproduction) -> str:
    """How many orderings held, in one sentence."""
    counted = [each.verdict for each in found.orderings if each.verdict != "not measured" and not each.ours]
    if not counted:
        return "The paper claims no ordering here."
    parts = [f"{counted.count(verdict)} {text}" for verdict, (_, text) in WORDS.items() if verdict in counted]
    return f"Of {len(counted)} ordering{'s' * (len(counted) != 1)} of the paper {', '.join(parts)}."


def _change(name: str, interval: Interval | None) -> Pieces:
    """A difference with its interval."""
    quantity = QUANTITIES[name]
    if interval is None:
        return (words.NOTHING,)
    middle = f"{quantity.change(interval.mean)}{quantity.change_unit}"
    if interval.low is None or interval.high is None:
        return middle, f"(n = {interval.pairs})"
    return middle, f"[{quantity.change(interval.low)}, {quantity.change(interval.high)}]"


def text(
    found: Reproduction, name: str = "", figures: Mapping[str, str] | None = None, said: Collection[str] = ()
) -> str:
    """Everything in GitHub's Markdown; `reproduction.md`.

    :param name: of the recipe, where several stand below each other.
    :param figures: file → what it shows.
    :param said: captions that stand elsewhere and are left out.
    """
    grids = (replace(each, caption="") if each.caption in said else each for each in tables(found))
    lines = [
        f"## {f'`{name}`: ' if name else ''}{found.title}",
        f"{found.source}. {found.reading}",
        *([f"Made smaller: {found.scaled}."] if found.scale == "cpu" else []),
        f"```sh\n{found.command}\n```",
        "\n".join(f"- {line}" for line in found.settings),
        f"{tally(found)}{f' All trainings, one after the other: {words.duration(found.seconds)}.' if found.settings else ''}",
        *(markdown(each).rstrip() for each in grids),
        *(f"![{escaped(title)}]({path})" for path, title in (figures or {}).items()),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def tables(found: Reproduction) -> tuple[Grid, ...]:
    """All tables of an outcome."""
    return (numbers(found), *([orders(found)] if found.orderings else []), *sweeps(found))


def _published(each: Measured) -> str:
    return words.NOTHING if each.published is None else QUANTITIES[each.quantity].text(each.published)


def _interval(each: Measured) -> tuple[str, ...]:
    quantity = QUANTITIES[each.quantity]
    if each.value is None:
        return (words.NOTHING,)
    middle = quantity.say(each.value)
    if each.low is None or each.high is None:
        return (middle,)
    return middle, f"[{quantity.say(each.low)}, {quantity.say(each.high)}]"


def _place(place: Place, other: Place, always: bool) -> str:
    """The name of a side, with its run where that differs from the other's.

    :param always: with its run in any case.
    """
    run, placement = place
    if not placement:
        return run
    return placement if run == other[0] and not always else f"{placement} ({run})"
