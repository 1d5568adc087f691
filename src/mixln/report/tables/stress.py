"""The table of a stress test."""

from __future__ import annotations

from mixln import formats
from mixln.report.names import plain
from mixln.report.tables.grid import TableGrid
from mixln.report.wording import search_report as words
from mixln.report.wording.phrases import Pieces
from mixln.report.wording.stress import ends, interval, ratio
from mixln.search.results import LearningRateLimit, Stress


def table(result: Stress) -> TableGrid:
    """One row per placement, depth and init."""
    several = len({limit.layers for limit in result.limits}) > 1
    baseline = next(limit.title for limit in result.limits if limit.placement == result.baseline)
    head = words.stress_head(baseline, several_depths=several)
    return TableGrid(
        title=words.STRESS_TITLE,
        head=head,
        rows=tuple(_row(limit, several) for limit in result.limits),
        words=len(head) - 2,
        caption=words.stress_caption(result),
    )


def _row(limit: LearningRateLimit, several: bool) -> tuple[Pieces, ...]:
    name = (plain(limit.title),) + ((limit.placement,) if "(" in limit.placement else ())
    depth = ((str(limit.layers),),) if several else ()
    unknown = bool(limit.trained or limit.failed)
    highest = (words.highest(limit.rate, censored=bool(limit.censored), unknown=unknown), interval(limit))
    first, _, second = ratio(limit).partition(" ")
    times = (first or formats.NOTHING, second)
    return (name, *depth, (limit.init,), _above(limit), *(tuple(filter(None, cell)) for cell in (highest, times)))


def _above(limit: LearningRateLimit) -> Pieces:
    """How the ramps ended."""
    pieces = [f"{count} {end}" for end, count in ends(limit.failures).items()]
    if limit.spiked:
        pieces.append(words.spiked(limit.spiked))
    if limit.failed:
        pieces.append(f"{limit.failed} failed")
    return (*(f"{piece}," for piece in pieces[:-1]), *pieces[-1:])
