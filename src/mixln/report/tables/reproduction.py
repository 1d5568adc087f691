"""The tables of the outcome of a recipe: measured beside published numbers, and the orderings."""

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


def numbers(outcome: Reproduction) -> TableGrid:
    """Published and measured numbers."""
    if not outcome.trained:
        return _counted(outcome)
    quantities = {measured.quantity for measured in outcome.measured}
    several = len(quantities) > 1
    by = (words.QUANTITY,) if several else ()
    head = (words.MODEL, words.PLACEMENT, *by, words.PUBLISHED, words.MEASURED, words.TRAINED)
    return TableGrid(
        title=words.numbers_title("" if several else "".join(quantities)),
        head=head,
        rows=tuple(
            (
                (measured.run,),
                (measured.placement,),
                *(((words.QUANTITIES[measured.quantity],),) if several else ()),
                (_published(measured),),
                _interval(measured),
                (f"{measured.trained} of {measured.seeds}" if measured.seeds else formats.NOTHING,),
            )
            for measured in outcome.measured
        ),
        words=len(head) - 3,
        caption=words.NUMBERS_CAPTION,
    )


def _counted(outcome: Reproduction) -> TableGrid:
    """Published and measured numbers of a recipe without training, and so without seeds."""
    return TableGrid(
        title=words.COUNTED_TITLE,
        head=(words.MODEL, words.QUANTITY, words.PUBLISHED, words.HERE),
        rows=tuple(
            ((measured.run,), (words.QUANTITIES[measured.quantity],), (_published(measured),), _interval(measured))
            for measured in outcome.measured
        ),
        words=2,
    )


def orders(outcome: Reproduction) -> TableGrid:
    """Every ordering of the paper, with its outcome."""
    sides = OrderingColumns.of(outcome.orderings)
    trained = _survivors(outcome.measured)
    return TableGrid(
        title=words.orders_title(sides.quantity),
        head=(*sides.head, words.OUTCOME, words.MEASURED, words.SEEDS, words.PUBLISHED),
        rows=tuple(
            (
                *sides.cells(ordering),
                (_outcome(ordering, trained) + (words.OURS if ordering.ours else ""),),
                _survived(ordering, trained) or _change(ordering.quantity, ordering.difference),
                (formats.NOTHING if ordering.difference is None else str(ordering.difference.pairs),),
                (_published_difference(ordering),),
            )
            for ordering in outcome.orderings
        ),
        words=len(sides.head) + 1,
        caption=words.ORDERS_CAPTION,
    )


Survivors = Mapping[tuple[str, str, str], tuple[int, int]]
"""Quantity, run and placement → number of seeds that trained, and number of all seeds."""


def _survivors(measured: Iterable[MeasuredQuantity]) -> Survivors:
    return {_at(quantity): (quantity.trained, quantity.seeds) for quantity in measured}


def _survived(ordering: OrderingResult, trained: Survivors) -> Pieces:
    """Numbers of seeds that trained on both sides, if not all did: a difference would then compare trained with untrained models."""
    if QUANTITIES[ordering.quantity].seeds != "survival":
        return ()
    sides = [trained.get((ordering.quantity, *place), (0, 0)) for place in (ordering.ahead, ordering.behind)]
    if all(count == seeds for count, seeds in sides):  # also if neither is known: 0 of 0
        return ()
    return words.survived(sides)


@dataclass(frozen=True, kw_only=True)
class OrderingColumns:
    """The columns that identify an ordering.

    :param run: whether the first side is named with its run.
    :param quantity: the quantity of all orderings; empty if there are several.
    """

    run: bool
    quantity: str

    @classmethod
    def of(cls, orderings: Sequence[OrderingResult]) -> OrderingColumns:
        quantities = {ordering.quantity for ordering in orderings}
        runs = {place[0] for ordering in orderings for place in (ordering.ahead, ordering.behind)}
        return cls(run=len(runs) > 1, quantity=quantities.pop() if len(quantities) == 1 else "")

    @property
    def head(self) -> tuple[str, ...]:
        return (words.PAPER_AHEAD, words.AHEAD_OF, *(() if self.quantity else (words.BY,)))

    def cells(self, ordering: OrderingResult) -> tuple[Pieces, ...]:
        by = () if self.quantity else ((words.QUANTITIES[ordering.quantity],),)
        return (
            (_place(ordering.ahead, ordering.behind, self.run),),
            (_place(ordering.behind, ordering.ahead, False),),
            *by,
        )


def numbers_beside(study: DeviationStudy) -> TableGrid:
    """Measured numbers: as in the paper, and with the authors' code."""
    columns = {words.PAPER: study.measured, **{each.name: each.measured for each in study.varied}}
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
        caption=words.beside_caption(study),
    )


def _at(measured: MeasuredQuantity) -> tuple[str, str, str]:
    return measured.quantity, measured.run, measured.placement


def _trained(measured: MeasuredQuantity | None) -> Pieces:
    if measured is None:
        return (formats.NOTHING,)
    return (
        *_interval(measured),
        *([f"({measured.trained} of {measured.seeds})"] if measured.trained < measured.seeds else []),
    )


def differences_beside(study: DeviationStudy) -> TableGrid:
    """The published differences, and the measured ones as in the paper and with the authors' code."""
    sides, trained = OrderingColumns.of(study.orderings), _survivors(study.measured)
    return TableGrid(
        title=words.differences_title(sides.quantity),
        head=(*sides.head, words.PUBLISHED, words.PAPER, *(variant.name for variant in study.varied)),
        rows=tuple(
            (
                *sides.cells(plain),
                (_published_difference(plain),),
                _became(plain, trained),
                *(_became(effect.ordering, _survivors(varied.measured)) for varied, effect in _effects(study, plain)),
            )
            for plain in study.orderings
        ),
        words=len(sides.head),
        caption=words.DIFFERENCES_CAPTION,
    )


def changes_beside(study: DeviationStudy) -> TableGrid:
    """The change of those differences due to each deviation of the authors' code."""
    sides, trained = OrderingColumns.of(study.orderings), _survivors(study.measured)

    def change(plain: OrderingResult, varied: VariantResult, effect: Effect) -> Pieces:
        if _survived(plain, trained) or _survived(effect.ordering, _survivors(varied.measured)):
            return (formats.NOTHING,)
        return _change(plain.quantity, effect.change)

    return TableGrid(
        title=words.changes_title(sides.quantity),
        head=(*sides.head, *(variant.name for variant in study.varied)),
        rows=tuple(
            (*sides.cells(plain), *(change(plain, varied, effect) for varied, effect in _effects(study, plain)))
            for plain in study.orderings
        ),
        words=len(sides.head),
        caption=words.CHANGES_CAPTION,
    )


def _became(ordering: OrderingResult, trained: Survivors) -> Pieces:
    """The difference and the outcome of an ordering."""
    difference = _survived(ordering, trained) or _change(ordering.quantity, ordering.difference)
    return (*difference, _outcome(ordering, trained))


def _outcome(ordering: OrderingResult, trained: Survivors) -> str:
    return words.outcome(ordering.verdict, all_trained=not _survived(ordering, trained))


def _effects(study: DeviationStudy, plain: OrderingResult) -> list[tuple[VariantResult, Effect]]:
    """The effect of each variant on one ordering."""
    claim = (plain.quantity, plain.ahead, plain.behind)
    return [
        (variant, effect)
        for variant in study.varied
        for effect in variant.effects
        if (effect.ordering.quantity, effect.ordering.ahead, effect.ordering.behind) == claim
    ]


def sweeps(outcome: Reproduction) -> tuple[TableGrid, ...]:
    """Perplexity by placement and learning rate, a table for each run with several learning rates."""
    tables = []
    for run in dict.fromkeys(point.run for point in outcome.swept):
        mine = [point for point in outcome.swept if point.run == run]
        rates = sorted({point.learning_rate for point in mine})
        cells = {(point.placement, point.learning_rate): point for point in mine}
        tables.append(
            TableGrid(
                title=words.sweep_title(run),
                head=(words.PLACEMENT, *(f"{rate:g}" for rate in rates)),
                rows=tuple(
                    ((placement,), *((_cell(cells.get((placement, rate))),) for rate in rates))
                    for placement in dict.fromkeys(point.placement for point in mine)
                ),
                caption=words.SWEEP_CAPTION,
            )
        )
    return tuple(tables)


def _cell(point: SweepPoint | None) -> str:
    if point is None:
        return formats.NOTHING
    if not point.counted:
        return words.DIVERGED
    shown = PERPLEXITY.say_value(mean(point.counted))
    return shown if point.trained == len(point.losses) else f"{shown} ({point.trained} of {len(point.losses)})"


def _change(name: str, interval: Interval | None) -> Pieces:
    """A difference with its interval."""
    metric = QUANTITIES[name].metric
    if interval is None:
        return (formats.NOTHING,)
    middle = metric.say_change(interval.mean)
    if interval.low is None or interval.high is None:
        return middle, f"(n = {interval.pairs})"
    return middle, f"[{metric.change(interval.low)}, {metric.change(interval.high)}]"


def _published_difference(ordering: OrderingResult) -> str:
    """The difference of two published numbers, in the format of the measured ones."""
    metric, (first, second) = QUANTITIES[ordering.quantity].metric, ordering.published
    if first is None or second is None:
        return formats.NOTHING
    averaged = metric.transform.averaged
    return metric.say_change(averaged(first) - averaged(second))


def tables(outcome: Reproduction) -> tuple[TableGrid, ...]:
    """All tables of an outcome."""
    return (numbers(outcome), *([orders(outcome)] if outcome.orderings else []), *sweeps(outcome))


def _published(measured: MeasuredQuantity) -> str:
    return (
        formats.NOTHING if measured.published is None else QUANTITIES[measured.quantity].metric.text(measured.published)
    )


def _interval(measured: MeasuredQuantity) -> tuple[str, ...]:
    metric = QUANTITIES[measured.quantity].metric
    middle = metric.say_value(measured.value)
    if measured.value is None or measured.low is None or measured.high is None:
        return (middle,)
    return middle, f"[{metric.say_value(measured.low)}, {metric.say_value(measured.high)}]"


def _place(place: Place, other: Place, always: bool) -> str:
    """The name of one side of an ordering, with its run if that differs from the other's.

    :param always: always include the run.
    """
    run, placement = place
    if not placement:
        return run
    return placement if run == other[0] and not always else f"{placement} ({run})"
