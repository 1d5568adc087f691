"""What became of a recipe, as tables: our numbers beside the published ones, and the orderings."""

from __future__ import annotations

from mixln.compare import words
from mixln.recipes.outcome import Measured, Ordering, Reproduction
from mixln.recipes.quantities import QUANTITIES
from mixln.recipes.records import Place
from mixln.report.grid import Grid, markdown

WORDS = {
    "held": "held",
    "did not hold": "did not hold",
    "undecided": "these seeds do not tell",
    "one of a kind": "no seeds to tell noise from",
    "not measured": "not measured at this scale",
}


def numbers(found: Reproduction) -> Grid:
    """Published beside measured."""
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
        "neither diverged nor stalled.",
    )


def orders(found: Reproduction) -> Grid:
    """Every ordering of the paper, and whether it held."""
    return Grid(
        title="Did the paper's order hold?",
        head=("the paper has", "ahead of", "by", "outcome", "difference, 95% interval"),
        rows=tuple(
            (
                (_place(each.ahead, each.behind),),
                (_place(each.behind, each.ahead),),
                (each.quantity,),
                (WORDS[each.verdict],),
                difference(each),
            )
            for each in found.orderings
        ),
        words=4,
        caption="Differences are of the first from the second, paired by seed.",
    )


def tally(found: Reproduction) -> str:
    """How many orderings held, in one sentence."""
    counted = [each.verdict for each in found.orderings if each.verdict != "not measured"]
    if not counted:
        return "The paper claims no ordering here."
    parts = [
        f"{counted.count(verdict)} {text}"
        for verdict, text in (
            ("held", "held"),
            ("did not hold", "did not hold"),
            ("undecided", "these seeds do not tell"),
            ("one of a kind", "had no seeds to tell noise from"),
        )
        if verdict in counted
    ]
    return f"Of {len(counted)} orderings of the paper {', '.join(parts)}."


def difference(each: Ordering) -> tuple[str, ...]:
    """The difference of an ordering with its interval."""
    quantity, interval = QUANTITIES[each.quantity], each.difference
    if interval is None:
        return (words.NOTHING,)
    middle = f"{quantity.change(interval.mean)}{quantity.change_unit}"
    if interval.low is None or interval.high is None:
        return (middle,)
    return middle, f"[{quantity.change(interval.low)}, {quantity.change(interval.high)}]"


def text(found: Reproduction) -> str:
    """Everything in GitHub's Markdown; `reproduction.md`."""
    lines = [
        f"## {found.title}",
        f"{found.source}. {found.reading}",
        *([f"Made smaller: {found.scaled}."] if found.scale == "cpu" else []),
        *([f"As published: {'; '.join(found.deviations)}."] if found.deviations else []),
        f"```sh\n{found.command}\n```",
        "\n".join(f"- {line}" for line in found.settings),
        f"{tally(found)} All trainings together took {words.duration(found.seconds)}.",
        markdown(numbers(found)).rstrip(),
        *([markdown(orders(found)).rstrip()] if found.orderings else []),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


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


def _place(place: Place, other: Place) -> str:
    """The name of a side, as far as it differs from the other."""
    run, placement = place
    if not placement:
        return run
    return placement if run == other[0] and placement != other[1] else f"{placement} ({run})"
