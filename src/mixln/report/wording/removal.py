"""Words on sets of layers or branches to remove together, and on experts."""

from __future__ import annotations

from mixln import formats
from mixln.diagnostics.findings import BestRemoval, IdleExperts
from mixln.diagnostics.results import Experts, Method, RemovedPart, RemovedSet, Selection, Units
from mixln.report.names import plain
from mixln.report.wording.charts import ChartText
from mixln.report.wording.phrases import capitalised, joined, listed, plural

METHODS: dict[Method, str] = {
    "greedy": "greedy",
    "one-shot": "smallest single drops",
    "contiguous": "best contiguous block",
}
NOUNS: dict[Units, str] = {
    "layers": "layer",
    "attention": "attention",
    "feed-forward": "feed-forward",
    "sublayers": "sublayer",
}
METHOD, REMOVED, SAVED = "method", "removed", "parameters saved"
EXPERT_LAYER, CHOSEN, LEAST, SHARES, WEIGHTS, NEVER = (
    "layer",
    "most used expert: share of tokens",
    "least used experts",
    "their shares of tokens",
    "their mean weights when chosen",
    "never chosen",
)
EXPERT, SHARE_OF_TOKENS = "expert", "share of the tokens"


def parts(removed: tuple[RemovedPart, ...]) -> str:
    """`layers 3, 7 to 9`; `attention of layer 2, feed-forward of layers 4, 5`; in the order of depth."""
    groups: dict[str | None, list[int]] = {}
    for part in sorted(removed, key=lambda part: (part.side or "", part.layer)):
        groups.setdefault(part.side, []).append(part.layer)
    named = {side: f"layer{'s' * (len(layers) > 1)} {_ranges(layers)}" for side, layers in groups.items()}
    return listed(text if side is None else f"{side} of {text}" for side, text in named.items())


def _ranges(layers: list[int]) -> str:
    """`3, 7–9`: layers in ascending order."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return listed(f"{run[0]}–{run[-1]}" if len(run) > 2 else listed(run) for run in runs)


def change(one: RemovedSet, selection: Selection) -> str:
    """`+0.281 nats per token [+0.25, +0.31]`."""
    return f"{formats.signed(one.change)} {plain(selection.unit)} {formats.interval(one.low, one.high)}".rstrip()


def chosen(selection: Selection, one: RemovedSet) -> str:
    """The set that was chosen, and the measure without it."""
    return (
        f"{capitalised(parts(one.parts))} removed ({METHODS[one.method]}): {plain(selection.measure)} "
        f"{formats.number(selection.original, 4)} → {formats.number(one.value, 4)}, {change(one, selection)}"
    )


def best(finding: BestRemoval) -> str:
    """The sentence on the best of the sets."""
    selection, (first, *others) = finding.selection, finding.ranked
    number = len(first.parts)
    beside = joined(
        [f"{METHODS[other.method]}: {formats.signed(other.change)} ({parts(other.parts)})" for other in others]
    )
    ratio = f"{first.parameters / selection.parameters:.1%} of the parameters"
    return (
        f"Of {plural(number, NOUNS[selection.units])} to remove, {parts(first.parts)} ({METHODS[first.method]}) cost least: "
        f"{change(first, selection)}, {ratio}" + (f"; {beside}." if beside else ".")
    )


def idle(finding: IdleExperts) -> str:
    """The sentence on experts that were never, or hardly ever, chosen."""
    layers = plural(finding.layers, "layer")
    even = f"{finding.even:.1%}"
    if not finding.never:
        (layer, expert), share = finding.least, finding.share
        return (
            f"Every expert of {layers} was chosen; the least used is expert {expert} of layer {layer}, for {share:.2%} of the tokens "
            f"({even} if all were used equally)."
        )
    shown = listed(f"{expert} in layer {layer}" for layer, expert in finding.never[:8])
    more = f" and {len(finding.never) - 8:,} more" if len(finding.never) > 8 else ""
    return f"{plural(len(finding.never), 'expert')} of {layers} never chosen on this text: {shown}{more}."


def title(name: str, selection: Selection) -> str:
    """Title of the table of sets."""
    count = len(selection.sets[0].parts)
    return f"{name}: {plural(count, NOUNS[selection.units])} removed together, by three methods"


def caption(selection: Selection) -> str:
    """What the table of sets shows."""
    noun = NOUNS[selection.units]
    what = "skipped" if selection.units == "layers" else "set to zero, with the norms on the stream kept"
    return (
        f"Each set was measured as a whole: the model without all of it ({what}). Greedy: the {noun} without which the "
        f"{plain(selection.measure)} is best, given those removed before, in the order of removal; none need be adjacent. Smallest single "
        "drops: ranked alone, once. 95% intervals over sequences; the sets were chosen on the same text, so that other text may cost more."
    )


def in_order(one: RemovedSet) -> str:
    """The parts in the order of their removal: `18, 15, 7`, or `18 attention, 15 feed-forward`."""
    return listed(f"{part.layer} {part.side}" if part.side else part.layer for part in one.parts)


def experts_title(name: str) -> str:
    """Title of the table of experts."""
    return f"{name}: use of the experts"


def experts_cell(layer: int, expert: int, share: float, weight: float | None) -> str:
    """Hover text of a cell of the map of experts."""
    strength = "" if weight is None else f", mean weight {formats.number(weight)}"
    return f"layer {layer}, expert {expert}: {share:.2%} of the tokens{strength}"


def experts(every: list[tuple[str, Experts]]) -> ChartText:
    """The map of the use of the experts."""
    even = listed(f"{name}: {use.per_token / len(use.chosen[0]):.1%}" for name, use in every)
    return ChartText(
        title="Use of the experts",
        caption=(
            "Each cell is an expert (horizontal axis, counted from 0) of a layer (vertical axis). The colour is the share of the tokens "
            f"for which the router chose it; with equal use it would be the same everywhere ({even}). Layers without cells have no experts."
        ),
        description="Heat maps of the share of tokens for which each expert of each layer was chosen. The least used experts are in the "
        "table of experts.",
    )
