"""What can and cannot be concluded, in words. It says what the figures carry and no more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mixln.compare.measure import Measure
from mixln.compare.results import Floor, Interval, PlacementSummary
from mixln.compare.statistics import order


def verdict(
    rows: Sequence[PlacementSummary],
    measure: Measure,
    *,
    baseline: str,
    floor: Floor,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    given: str,
    runner_up: tuple[PlacementSummary, Interval] | None,
    out: Path,
) -> tuple[str, ...]:
    """Sentences, the most important first; a command to run next stands between backticks and is complete.

    :param given: what one trial was trained on, for example `307,200 tokens in 300 steps`.
    :param runner_up: see :func:`mixln.compare.statistics.runner_up`.
    :param out: folder of the experiment.
    """
    several = len(learning_rates) > 1
    lead = min((row for row in rows if row.best.finished), key=lambda row: order(row, measure), default=None)
    reference = next(row for row in rows if row.placement == baseline)
    said_already = lead if len(seeds) > 1 and not several else None
    others = [row for row in rows if lead and row.placement != baseline and row is not said_already]
    sentences = [
        _winner(rows, measure, lead, reference, several, len(seeds)),
        _second(measure, lead, runner_up, reference),
        *(_against(row, measure, reference, several) for row in others),
        *_broken(rows, measure, floor),
        *_limits(rows, measure, lead, reference, learning_rates, seeds, out),
        f"Every trial was given {given}. A longer training or a larger model can order the "
        "placements differently; the published comparisons do.",
    ]
    return tuple(sentence for sentence in sentences if sentence)


def name(row: PlacementSummary) -> str:
    """A placement as the reader knows it: its title, and its text where that has an argument."""
    return f"{row.title} ({row.placement})" if "(" in row.placement and row.title != row.placement else row.title


def _winner(
    rows: Sequence[PlacementSummary],
    measure: Measure,
    lead: PlacementSummary | None,
    reference: PlacementSummary,
    several: bool,
    seeds: int,
) -> str:
    if lead is None:
        return "No trial trained: every one diverged, stalled or failed. Lower the learning rate or give more steps."
    at = "each at its best learning rate" if several else f"at learning rate {lead.best.learning_rate:g}"
    survivors = [row for row in rows if measure.badness(row.best) < measure.badness(lead.best)]
    among = f" of the placements that trained at {lead.best.finished} of {lead.best.seeds} seeds" if survivors else ""
    role = "The baseline " if lead is reference else ""
    first = f"{role}{name(lead)} has the {measure.best} held-out {measure.name}{among}, {measure.say_briefly(lead.best)}, {at}"
    if seeds == 1:
        return f"{first}. With one seed there is no interval, and this supports no claim."
    if lead is reference:
        return f"{first}, {_distance([row for row in rows if row is not lead and row.best.finished], measure)}."
    difference = lead.best.difference
    if difference is None:
        return f"{first}; the baseline {name(reference)} has no seed in common to compare with."
    against = f"{first}: {_said(measure, difference)} against the baseline {name(reference)}."
    if not reference.best.finished:
        return f"{against} The baseline did not train at any seed, so this is no comparison of two that did."
    if difference.low is None:
        return f"{against} With one seed in common there is no interval, and this supports no claim."
    if lead.best.stalled or reference.best.stalled:
        return f"{against} Stalled trials are left out of it, so it says nothing of which one trains more surely."
    if difference.pointlike:
        return f"{against} All seeds differ by exactly as much, so nothing is known of the noise between them: this supports no claim."
    if difference.excludes_zero:
        where = (
            f"on this model, {measure.material} and length"
            if several
            else f"on this model and {measure.material}, at this length and learning rate,"
        )
        return f"{against} The 95% interval excludes zero: {where} it is more than the noise between seeds."
    return f"{against} The 95% interval includes zero: these seeds cannot tell it from the baseline."


def _said(measure: Measure, interval: Interval) -> str:
    return " ".join(measure.difference(interval))


def _distance(rivals: Sequence[PlacementSummary], measure: Measure) -> str:
    """How far a leading baseline is from the others that trained."""

    def behind(difference: Interval | None) -> bool:
        return difference is not None and difference.excludes_zero and measure.worse(difference).mean > 0

    close = [row for row in rivals if not behind(row.best.difference)]
    if not rivals:
        return "the only placement that trained"
    if close:
        return f"but these seeds do not separate it from {_list(close)}"
    return "and the 95% interval of every other placement that trained excludes zero"


def _second(
    measure: Measure,
    lead: PlacementSummary | None,
    runner_up: tuple[PlacementSummary, Interval] | None,
    reference: PlacementSummary,
) -> str:
    """How far the first is from the second, where that is not said already."""
    if lead is None or runner_up is None or reference in (lead, runner_up[0]):
        return ""
    second, difference = runner_up
    said = (
        f"The next, {name(second)}, has {measure.name} {measure.say_briefly(second.best)}: {_said(measure, difference)} "
        f"against {name(lead)}"
    )
    if difference.low is None:
        return f"{said}."
    behind = difference.excludes_zero and measure.worse(difference).mean > 0
    return f"{said}: {'behind it' if behind else 'these seeds do not separate the two'}."


def _against(row: PlacementSummary, measure: Measure, reference: PlacementSummary, several: bool) -> str:
    best, common = row.best, row.common
    if best.difference is None:
        return f"{name(row)} has no held-out {measure.name} to compare with {name(reference)}."
    parts = [
        f"{name(row)} against {name(reference)}: {_said(measure, best.difference)} in {measure.name}"
        + (" at its best learning rate" if several else "")
    ]
    if several and common.difference is not None:
        parts.append(f"{_said(measure, common.difference)} at the common learning rate {common.learning_rate:g}")
    said = "; ".join(parts)
    if best.mixed or reference.best.mixed:
        return (
            f"{said}, over the {best.difference.pairs} of {best.seeds} seeds at which both trained; "
            f"{name(row)} stalled at {best.stalled}, {name(reference)} at {reference.best.stalled}."
        )
    if best.difference.pairs < best.seeds:
        return f"{said}, over the {best.difference.pairs} of {best.seeds} seeds at which both have one."
    if best.difference.low is None:
        return f"{said}."
    if best.stalled or reference.best.stalled:
        stalled = " and ".join(name(each) for each in (row, reference) if each.best.stalled)
        return f"{said}; {stalled} stalled at every seed, so this is no comparison of two that trained."
    return f"{said}: {_judgement(measure.worse(best.difference))}."


def _judgement(worse: Interval) -> str:
    if not worse.excludes_zero:
        return "not resolved by these seeds"
    return "better than the baseline here" if worse.mean < 0 else "worse than the baseline here"


def _broken(rows: Sequence[PlacementSummary], measure: Measure, floor: Floor) -> list[str]:
    found = []
    for row in rows:
        for cell in row.cells:
            counts = {"diverged": cell.diverged, "stalled": cell.stalled, "failed with an error": cell.failed}
            said = [f"{count} of {cell.seeds} {what}" for what, count in counts.items() if count]
            if said:
                found.append(f"{name(row)} at learning rate {cell.learning_rate:g}: {', '.join(said)}.")
    if any(cell.stalled for row in rows for cell in row.cells):
        found.append(f"Stalled means: {measure.stalled.format(measure.say(floor))}.")
    return found


def _limits(
    rows: Sequence[PlacementSummary],
    measure: Measure,
    lead: PlacementSummary | None,
    reference: PlacementSummary,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    out: Path,
) -> list[str]:
    found = []
    if lead not in (None, reference) and len(rows) > 2 and len(seeds) > 1:
        found.append(
            f"The first was picked as the best of {len(rows)}, and the intervals are not corrected for that: of many "
            "comparisons without any true difference, more than one in twenty will show one."
        )
    if len(learning_rates) == 1:
        found.append(
            f"One learning rate ({learning_rates[0]:g}) proves nothing about placements: each has its own best, and the "
            f"order can turn round at another. Add some: {_extended(out, f'--learning-rates {_around(learning_rates[0])}')}."
        )
    else:
        edge = [row for row in rows if row.best.learning_rate in (min(learning_rates), max(learning_rates))]
        found.append(
            f"The best learning rate was chosen on the same held-out {measure.material} and seeds, which flatters every placement a little."
            + (
                f" It lies at the edge of the grid for {_list(edge)}: a wider grid may find a better one."
                if edge
                else ""
            )
        )
    inits = {row.init for row in rows}
    if len(inits) > 1:
        groups = [f"{init}: {_list([row for row in rows if row.init == init])}" for init in sorted(inits)]
        found.append(
            f"The placements do not share their initialisation ({'; '.join(groups)}), as their authors recommend; "
            "part of a difference may be the initialisation. Hold it fixed with --init."
        )
    if len(seeds) < 5:
        few = f"{len(seeds)} seeds make wide intervals" if len(seeds) > 1 else "One seed gives no interval"
        found.append(f"{few}; add some: {_extended(out, f'--seeds {_more(seeds)}')}.")
    return found


def _extended(out: Path, axis: str) -> str:
    """The command that adds to the experiment; its other settings are read from its folder."""
    return f"`mixln compare --out {shlex.quote(str(out))} {axis} --extend`"


def _around(rate: float) -> str:
    """A learning rate with one below and one above it, half a decade apart."""
    return f"{rate / 3:.1g} {rate!r} {rate * 10 / 3:.1g}"


def _more(seeds: Sequence[int]) -> str:
    """The seeds, and the lowest others up to five in all."""
    others = [seed for seed in range(5) if seed not in seeds]
    return " ".join(map(str, [*seeds, *others][:5]))


def _list(rows: Sequence[PlacementSummary]) -> str:
    return ", ".join(row.placement for row in rows)
