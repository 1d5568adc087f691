"""The little language of placements.

    pre                     every layer
    mix(0.25)               with an argument
    post*3,pre*9            3 layers, then 9; one part may leave its count out and takes the rest
    hybrid**2,pre           2 layers of HybridNorm*, then Pre-LN
    qknorm+pre              modified: norms on q and k as well
    stock                   what the model's family does by itself

Modifiers are applied from right to left, each to its own part of a mixture.
A part of a mixture is cut out of its placement built for the whole model, so that what depends on the layer's index
or on the number of layers (LayerNorm Scaling, DeepNorm) is what it would be there. A norm on the embeddings (Peri-LN)
and a special first layer (HybridNorm*) belong to the first part, or are left out. Norms that the model's family itself puts
on its projections (Qwen3: on q and k) stay where a placement does not set its own; `bare+pre` is without them.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from mixln.errors import PlacementError, unknown
from mixln.placement.modifiers import MODIFIERS
from mixln.placement.records import MOST_LAYERS, Layer, Placement, Projections
from mixln.placement.zoo import PRE, ZOO, Entry, uniform

_TERM = re.compile(r"(?P<name>[a-z][a-z0-9-]*\*?)(?:\((?P<arguments>[^()]*)\))?")
_COUNTED = re.compile(r"(?P<term>.*?)\*(?P<count>\d{1,9})")


def placement(text: str | Placement, layers: int, *, stock: Layer = PRE, stock_init: str = "normal") -> Placement:
    """Builds the placement that `text` names for a model of `layers` layers.

    :param text: for example `mix(0.25)`, `post*3,pre*9` or `qknorm+pre`; a finished placement is checked and passed on as it is.
    :param layers: number of layers of the model, at least 1.
    :param stock: a layer as the model's family makes it by itself; `stock_init` is how it starts.
    :raises PlacementError: if a name is unknown, an argument is wrong, or the counts do not add up to `layers`.
    """
    if layers < 1:
        raise PlacementError(f"layers must be at least 1, got {layers}")
    if layers > MOST_LAYERS:
        raise PlacementError(f"layers must be at most {MOST_LAYERS:,}, got {layers}")
    if not isinstance(text, str | Placement):
        raise PlacementError(f"placement must be a text such as 'mix(0.25)' or a Placement, got {text!r}")
    if isinstance(text, Placement):
        if len(text.layers) != layers:
            raise PlacementError(f"placement {text.name!r} has {len(text.layers)} layers, the model has {layers}")
        return text
    name = canonical(text)
    parts = [_split_count(part) for part in _split(name, ",")]
    zoo = ZOO | {"stock": replace(ZOO["stock"], build=uniform(stock), init=stock_init)}
    built = [_part(term, layers, zoo, stock.projections) for term, _ in parts]
    counts = _fill_counts(name, [count for _, count in parts], layers)
    records, start = [], 0
    for part, count in zip(built, counts, strict=True):
        records += part.layers[start : start + count]
        start += count
    if len(streams := {part.streams for part in built}) > 1:
        raise PlacementError(
            f"{name}: its parts keep the residual stream in different ways ({', '.join(sorted(streams))}), which one model cannot"
        )
    inits = {part.init for part in built}
    return Placement(
        name=name,
        layers=tuple(records),
        embedding_norm=built[0].embedding_norm,
        final_norm=built[-1].final_norm,
        streams=built[0].streams,
        history_norm=built[0].history_norm,
        init=inits.pop() if len(inits) == 1 else "normal",
    )


def canonical(text: str) -> str:
    """The one spelling of a placement's text: without blanks, in lower case."""
    return re.sub(r"\s+", "", text).lower()


def _part(term: str, layers: int, zoo: Mapping[str, Entry], own: Projections) -> Placement:
    """One term of a mixture, modifiers applied, for all layers of the model.

    :param own: the norms that the model's family puts on its projections.
    """
    *modifiers, base = _split(term, "+")
    name, arguments = _parse(base)
    if name not in zoo:
        raise PlacementError(_unknown_placement(term, name, zoo))
    built = replace(_apply(base, zoo[name].build, layers, arguments), init=zoo[name].init)
    built = replace(built, layers=tuple(_with_own(layer, own) for layer in built.layers))
    for modifier in reversed(modifiers):
        name, arguments = _parse(modifier)
        if name not in MODIFIERS:
            hint = f"; mixtures of placements are written {name}*6,{base}" if name in zoo else ""
            raise PlacementError(unknown("placement modifier", name, MODIFIERS) + hint)
        built = _apply(modifier, MODIFIERS[name].apply, built, arguments)
    return built


def _unknown_placement(term: str, name: str, zoo: Mapping[str, Entry]) -> str:
    """The message for a name that is no placement, with what was probably meant."""
    if name in MODIFIERS:
        return f"placement {term!r} ends in the modifier {name}, which goes in front of a placement: {name}+pre"
    spellings = {spelling: entry.name for entry in zoo.values() for spelling in (entry.name, entry.title.lower())}
    spellings |= {spelling.replace("-", ""): name for spelling, name in spellings.items()}
    close = difflib.get_close_matches(name, spellings, n=1, cutoff=0.75)
    meant = f"did you mean {spellings[close[0]]}? " if close else ""
    return f"placement {name!r} is not known; {meant}known: {', '.join(entry.example for entry in zoo.values())}"


def _with_own(layer: Layer, own: Projections) -> Layer:
    """The layer with the family's norms on the projections for which it has none."""
    missing = {slot: norm for slot, norm in vars(own).items() if getattr(layer.projections, slot) is None}
    return replace(layer, projections=replace(layer.projections, **missing))


def _apply(
    term: str, build: Callable[..., Placement], subject: int | Placement, arguments: tuple[str, ...]
) -> Placement:
    most = len(inspect.signature(build).parameters) - 1
    if len(arguments) > most:
        raise PlacementError(f"{term}: takes {most or 'no'} argument{'s' * (most > 1)}, got {len(arguments)}")
    return build(subject, *arguments)


def _parse(term: str) -> tuple[str, tuple[str, ...]]:
    match = _TERM.fullmatch(term)
    if match is None:
        raise PlacementError(
            f"placement {term!r} cannot be read; write for example pre, mix(0.25), post*3,pre*9 or qknorm+pre"
        )
    arguments = match["arguments"]
    if arguments == "":
        raise PlacementError(f"placement {term!r} has empty brackets; leave them out, or write for example mix(0.25)")
    return match["name"], tuple(arguments.split(",")) if arguments else ()


def _split(text: str, separator: str) -> list[str]:
    """Splits at the separators that stand outside brackets."""
    return re.split(rf"{re.escape(separator)}(?![^()]*\))", text)


def _split_count(part: str) -> tuple[str, int | None]:
    match = _COUNTED.fullmatch(part)
    return (match["term"], int(match["count"])) if match else (part, None)


def _fill_counts(name: str, counts: list[int | None], layers: int) -> list[int]:
    given = sum(count for count in counts if count is not None)
    open_parts = counts.count(None)
    if open_parts > 1:
        raise PlacementError(f"{name}: only one part of a mixture may leave out its count, {open_parts} do")
    if 0 in counts or (open_parts and given == layers):
        raise PlacementError(f"{name}: every part of a mixture needs at least one of the model's {layers} layers")
    if given > layers or (not open_parts and given != layers):
        raise PlacementError(
            f"{name}: its parts have {given} layers, the model has {layers}; change the counts to add up"
        )
    return [layers - given if count is None else count for count in counts]
