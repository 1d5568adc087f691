"""The tables of a recipe's outcome: our numbers beside the published ones, and the orderings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from mixln import formats
from mixln.compare.metrics import PERPLEXITY
from mixln.compare.results import Interval
from mixln.recipes.quantities import QUANTITIES
from mixln.recipes.records import Place
from mixln.recipes.results import (
    DeviationStudy,
    Effect,
    MeasuredQuantity,
    OrderingResult,
    Reproduction,
    SweepPoint,
    VariantResult,
)
from mixln.report.tables.grid import TableGrid
from mixln.report.wording import reproduction as words
from mixln.report.wording.phrases import Pieces


def numbers(found: Reproduction) -> TableGrid:
    """Published beside measured."""
    if not found.trained:
        return _counted(found)
    quantities = {each.quantity for each in found.measured}
    several = len(quantities) > 1
    by = (words.QUANTITY,) if several else ()
    head = (words.MODEL, words.PLACEMENT, *by, words.PUBLISHED, words.MEASURED, words.TRAINED)
    return TableGrid(
        title=words.numbers_title("" if several else "".join(quantities)),
        head=head,
        rows=tuple(
            (
                (each.run,),
                (each.placement,),
                *(((words.QUANTITIES[each.quantity],),) if several else ()),
                (_published(each),),
                _interval(each),
                (f"{each.trained} of {each.seeds}" if each.seeds else formats.NOTHING,),
            )
            for each in found.measured
        ),
        words=len(head) - 3,
        caption=words.NUMBERS_CAPTION,
    )


def _counted(found: Reproduction) -> TableGrid:
    """Of models that are counted, or exist and are diagnosed: nothing is trained, and there are no seeds."""
    return TableGrid(
        title=words.COUNTED_TITLE,
        head=(words.MODEL, words.QUANTITY, words.PUBLISHED, words.HERE),
        rows=tuple(
            ((each.run,), (words.QUANTITIES[each.quantity],), (_published(each),), _interval(each))
            for each in found.measured
        ),
        words=2,
    )


def orders(found: Reproduction) -> TableGrid:
    """Every ordering of the paper, and whether it held."""
    sides = OrderingColumns.of(found.orderings)
    trained = _survivors(found.measured)
    return TableGrid(
        title=words.orders_title(sides.quantity),
        head=(*sides.head, words.OUTCOME, words.MEASURED, words.SEEDS, words.PUBLISHED),
        rows=tuple(
            (
                *sides.cells(each),
                (_outcome(each, trained) + (words.OURS if each.ours else ""),),
                _survived(each, trained) or _change(each.quantity, each.difference),
                (formats.NOTHING if each.difference is None else str(each.difference.pairs),),
                (_published_difference(each),),
            )
            for each in found.orderings
        ),
        words=len(sides.head) + 1,
        caption=words.ORDERS_CAPTION,
    )


Survivors = Mapping[tuple[str, str, str], tuple[int, int]]
"""Quantity, run and placement → how many seeds trained, of how many."""


def _survivors(measured: Iterable[MeasuredQuantity]) -> Survivors:
    return {_at(each): (each.trained, each.seeds) for each in measured}


def _survived(each: OrderingResult, trained: Survivors) -> Pieces:
    """How many seeds trained of either side, where not all did; a difference would compare what learnt with what did not."""
    if QUANTITIES[each.quantity].seeds != "survival":
        return ()
    sides = [trained.get((each.quantity, *place), (0, 0)) for place in (each.ahead, each.behind)]
    if all(count == seeds for count, seeds in sides):  # also where it is not known
        return ()
    return words.survived(sides)


@dataclass(frozen=True, kw_only=True)
class OrderingColumns:
    """The columns that say which ordering it is.

    :param run: whether the first side is named with its run.
    :param quantity: the only one, by which all are ordered; empty where there are several.
    """

    run: bool
    quantity: str

    @classmethod
    def of(cls, orderings: Sequence[OrderingResult]) -> OrderingColumns:
        quantities = {each.quantity for each in orderings}
        runs = {place[0] for each in orderings for place in (each.ahead, each.behind)}
        return cls(run=len(runs) > 1, quantity=quantities.pop() if len(quantities) == 1 else "")

    @property
    def head(self) -> tuple[str, ...]:
        return (words.PAPER_AHEAD, words.AHEAD_OF, *(() if self.quantity else (words.BY,)))

    def cells(self, each: OrderingResult) -> tuple[Pieces, ...]:
        by = () if self.quantity else ((words.QUANTITIES[each.quantity],),)
        return ((_place(each.ahead, each.behind, self.run),), (_place(each.behind, each.ahead, False),), *by)


def numbers_beside(found: DeviationStudy) -> TableGrid:
    """What was measured as the paper says, and as the authors' code does."""
    columns = {words.PAPER: found.measured, **{each.name: each.measured for each in found.varied}}
    cells = {(name, *_at(each)): each for name, measured in columns.items() for each in measured}
    rows = dict.fromkeys(_at(each) for measured in columns.values() for each in measured if each.seeds)
    several = len({quantity for quantity, _, _ in rows}) > 1
    return TableGrid(
        title=words.BESIDE_TITLE,
        head=(words.MODEL, words.PLACEMENT, *((words.QUANTITY,) if several else ()), *columns),
        rows=tuple(
            (
                (run,),
                (placement,),
                *(((words.QUANTITIES[quantity],),) if several else ()),
                *(_trained(cells.get((name, quantity, run, placement))) for name in columns),
            )
            for quantity, run, placement in rows
        ),
        words=2 + several,
        caption=words.beside_caption(found),
    )


def _at(each: MeasuredQuantity) -> tuple[str, str, str]:
    return each.quantity, each.run, each.placement


def _trained(each: MeasuredQuantity | None) -> Pieces:
    if each is None:
        return (formats.NOTHING,)
    return (*_interval(each), *([f"({each.trained} of {each.seeds})"] if each.trained < each.seeds else []))


def differences_beside(found: DeviationStudy) -> TableGrid:
    """The differences that the paper published, as it says and as the authors' code does."""
    sides, trained = OrderingColumns.of(found.orderings), _survivors(found.measured)
    return TableGrid(
        title=words.differences_title(sides.quantity),
        head=(*sides.head, words.PUBLISHED, words.PAPER, *(each.name for each in found.varied)),
        rows=tuple(
            (
                *sides.cells(plain),
                (_published_difference(plain),),
                _became(plain, trained),
                *(_became(effect.ordering, _survivors(varied.measured)) for varied, effect in _effects(found, plain)),
            )
            for plain in found.orderings
        ),
        words=len(sides.head),
        caption=words.DIFFERENCES_CAPTION,
    )


def changes_beside(found: DeviationStudy) -> TableGrid:
    """By how much each thing that the authors' code does otherwise changes those differences."""
    sides, trained = OrderingColumns.of(found.orderings), _survivors(found.measured)

    def change(plain: OrderingResult, varied: VariantResult, effect: Effect) -> Pieces:
        if _survived(plain, trained) or _survived(effect.ordering, _survivors(varied.measured)):
            return (formats.NOTHING,)
        return _change(plain.quantity, effect.change)

    return TableGrid(
        title=words.changes_title(sides.quantity),
        head=(*sides.head, *(each.name for each in found.varied)),
        rows=tuple(
            (*sides.cells(plain), *(change(plain, varied, effect) for varied, effect in _effects(found, plain)))
            for plain in found.orderings
        ),
        words=len(sides.head),
        caption=words.CHANGES_CAPTION,
    )


def _became(each: OrderingResult, trained: Survivors) -> Pieces:
    """Difference and outcome."""
    return *(_survived(each, trained) or _change(each.quantity, each.difference)), _outcome(each, trained)


def _outcome(each: OrderingResult, trained: Survivors) -> str:
    return words.outcome(each.verdict, all_trained=not _survived(each, trained))


def _effects(found: DeviationStudy, plain: OrderingResult) -> list[tuple[VariantResult, Effect]]:
    """What each variant makes of one ordering."""
    claim = (plain.quantity, plain.ahead, plain.behind)
    return [
        (each, effect)
        for each in found.varied
        for effect in each.effects
        if (effect.ordering.quantity, effect.ordering.ahead, effect.ordering.behind) == claim
    ]


def sweeps(found: Reproduction) -> tuple[TableGrid, ...]:
    """Of each run with several learning rates, the perplexity by placement and learning rate."""
    tables = []
    for run in dict.fromkeys(each.run for each in found.swept):
        mine = [each for each in found.swept if each.run == run]
        rates = sorted({each.learning_rate for each in mine})
        cells = {(each.placement, each.learning_rate): each for each in mine}
        tables.append(
            TableGrid(
                title=words.sweep_title(run),
                head=(words.PLACEMENT, *(f"{rate:g}" for rate in rates)),
                rows=tuple(
                    ((placement,), *((_cell(cells.get((placement, rate))),) for rate in rates))
                    for placement in dict.fromkeys(each.placement for each in mine)
                ),
                caption=words.SWEEP_CAPTION,
            )
        )
    return tuple(tables)


def _cell(each: SweepPoint | None) -> str:
    if each is None:
        return formats.NOTHING
    if not each.counted:
        return words.DIVERGED
    shown = PERPLEXITY.say_value(mean(each.counted))
    return shown if each.trained == len(each.losses) else f"{shown} ({each.trained} of {len(each.losses)})"


def _change(name: str, interval: Interval | None) -> Pieces:
    """A difference with its interval."""
    metric = QUANTITIES[name].metric
    if interval is None:
        return (formats.NOTHING,)
    middle = metric.say_change(interval.mean)
    if interval.low is None or interval.high is None:
        return middle, f"(n = {interval.pairs})"
    return middle, f"[{metric.change(interval.low)}, {metric.change(interval.high)}]"


def _published_difference(each: OrderingResult) -> str:
    """The difference of two printed numbers, as ours are printed."""
    metric, (first, second) = QUANTITIES[each.quantity].metric, each.published
    if first is None or second is None:
        return formats.NOTHING
    averaged = metric.transform.averaged
    return metric.say_change(averaged(first) - averaged(second))


def tables(found: Reproduction) -> tuple[TableGrid, ...]:
    """All tables of an outcome."""
    return (numbers(found), *([orders(found)] if found.orderings else []), *sweeps(found))


def _published(each: MeasuredQuantity) -> str:
    return formats.NOTHING if each.published is None else QUANTITIES[each.quantity].metric.text(each.published)


def _interval(each: MeasuredQuantity) -> tuple[str, ...]:
    metric = QUANTITIES[each.quantity].metric
    middle = metric.say_value(each.value)
    if each.value is None or each.low is None or each.high is None:
        return (middle,)
    return middle, f"[{metric.say_value(each.low)}, {metric.say_value(each.high)}]"


def _place(place: Place, other: Place, always: bool) -> str:
    """The name of a side, with its run where that differs from the other's.

    :param always: with its run in any case.
    """
    run, placement = place
    if not placement:
        return run
    return placement if run == other[0] and not always else f"{placement} ({run})"
