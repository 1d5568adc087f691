"""The grammar of placement names.

    pre                     one placement for all layers
    mix(0.25)               with an argument
    post*3,pre*9            mixture: 3 layers, then 9; one part may omit its count and takes the remaining layers
    hybrid**2,pre           2 layers of HybridNorm*, then Pre-LN
    qknorm+pre              with a modifier: adds norms on q and k
    stock                   the family's own placement

Modifiers apply from right to left, each to its own part of a mixture.
A part of a mixture is a slice of its placement built for the whole model, so values that depend on the layer index or on the
number of layers (LayerNorm Scaling, DeepNorm) are those of the whole model. A norm on the embeddings (Peri-LN) and a special
first layer (HybridNorm*) apply only if their part comes first. The family's own norms on projections (Qwen3: on q and k) stay
where a placement does not set its own; `bare+pre` removes them. In the decoder of an encoder-decoder, cross-attention is placed as the
attention of its layer is.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mixln.errors import PlacementError, unknown
from mixln.placement.entry import PRE, Entry
from mixln.placement.modifiers import MODIFIERS
from mixln.placement.records import MOST_LAYERS, ONE, Layer, Placement, Projections
from mixln.placement.zoo import ZOO

_TERM = re.compile(r"(?P<name>[a-z][a-z0-9-]*\*?)(?:\((?P<arguments>[^()]*)\))?")
_COUNTED = re.compile(r"(?P<term>.*?)\*(?P<count>\d{1,9})")


def check_depth(layers: int) -> None:
    """:raises PlacementError: if a model has no layers, or more than :data:`~mixln.placement.MOST_LAYERS`."""
    if layers < 1:
        raise PlacementError(f"layers must be at least 1, got {layers}")
    if layers > MOST_LAYERS:
        raise PlacementError(f"layers must be at most {MOST_LAYERS:,}, got {layers}")


def placement(
    text: str | Placement,
    layers: int,
    *,
    stock: Layer | tuple[Layer, ...] = PRE,
    stock_init: str = "normal",
    stock_streams: Mapping[str, Any] = MappingProxyType({}),
) -> Placement:
    """Builds the placement named by `text` for a model of `layers` layers.

    :param text: for example `mix(0.25)`, `post*3,pre*9` or `qknorm+pre`; a :class:`Placement` is checked and returned unchanged.
    :param layers: number of layers of the model, at least 1.
    :param stock: record of the family's stock layers, or one per layer; `stock_init` is their initialisation,
        `stock_streams` their streams as entries of :class:`Placement`, by default one.
    :raises PlacementError: if a name is unknown, an argument is wrong, or the counts do not add up to `layers`.
    """
    check_depth(layers)
    if not isinstance(text, str | Placement):
        raise PlacementError(f"placement must be a string such as 'mix(0.25)' or a Placement, got {text!r}")
    if isinstance(text, Placement):
        if len(text.layers) != layers:
            raise PlacementError(f"placement {text.name!r} has {len(text.layers)} layers, the model has {layers}")
        return text
    name = canonical(text)
    parts = [_split_count(part) for part in _split(name, ",")]
    own = (stock,) * layers if isinstance(stock, Layer) else stock
    # Cross-attention is placed as the attention is, after all modifiers.
    plain = tuple(replace(layer, cross_attention=None) for layer in own)
    zoo = ZOO | {
        "stock": replace(
            ZOO["stock"], build=lambda layers: Placement(name="", layers=plain, **stock_streams), init=stock_init
        )
    }
    built = [_part(term, layers, zoo, own[0].projections) for term, _ in parts]
    counts = _fill_counts(name, [count for _, count in parts], layers)
    records, start = [], 0
    for part, count in zip(built, counts, strict=True):
        records += part.layers[start : start + count]
        start += count
    numbers = [max(part.stream_count, part.stream_period) for part in built]  # only one of them is not 1
    forms = [f"{part.streams}({n})" if n > 1 else part.streams for part, n in zip(built, numbers, strict=True)]
    if len(streams := set(forms)) > 1:
        raise PlacementError(
            f"{name}: all parts of a mixture must use the same residual stream, got {', '.join(sorted(streams))}"
        )
    if built[0].streams not in ONE and len({part.history_norm for part in built}) > 1:
        raise PlacementError(f"{name}: all parts of a mixture must use the same norm between residual streams")
    inits = {part.init for part in built}
    if own[0].cross_attention is not None:
        records = [replace(layer, cross_attention=layer.attention) for layer in records]
    return Placement(
        name=name,
        layers=tuple(records),
        embedding_norm=built[0].embedding_norm,
        final_norm=built[-1].final_norm,
        streams=built[0].streams,
        stream_count=built[0].stream_count,
        stream_period=built[0].stream_period,
        stream_eps=built[0].stream_eps,
        history_norm=built[0].history_norm,
        init=inits.pop() if len(inits) == 1 else "normal",
    )


def canonical(text: str) -> str:
    """The canonical spelling of a placement: lower case, without whitespace."""
    return re.sub(r"\s+", "", text).lower()


def check_names(text: str) -> None:
    """Checks the names in a placement, without the model: whether arguments and counts fit it is not known yet.

    :raises PlacementError: if a placement or a modifier is unknown, or the form is not that of the grammar.
    """
    for part in _split(canonical(text), ","):
        _check_term(_split_count(part)[0], ZOO)


def _check_term(term: str, zoo: Mapping[str, Entry]) -> None:
    """:raises PlacementError: if the placement or a modifier of a term without its count is unknown."""
    *modifiers, base = _split(term, "+")
    if (name := _parse(base)[0]) not in zoo:
        raise PlacementError(_unknown_placement(term, name, zoo))
    for name, _ in map(_parse, modifiers):
        if name not in MODIFIERS:
            hint = f"; write a mixture of placements as {name}*6,{base}" if name in zoo else ""
            raise PlacementError(unknown("placement modifier", name, MODIFIERS) + hint)


def _part(term: str, layers: int, zoo: Mapping[str, Entry], own: Projections) -> Placement:
    """Builds one term of a mixture, with its modifiers, for all layers of the model.

    :param own: the family's own norms on its projections.
    """
    _check_term(term, zoo)
    *modifiers, base = _split(term, "+")
    name, arguments = _parse(base)
    built = replace(_apply(base, zoo[name].build, layers, arguments), init=zoo[name].init)
    built = replace(built, layers=tuple(_with_own(layer, own) for layer in built.layers))
    for modifier in reversed(modifiers):
        name, arguments = _parse(modifier)
        built = _apply(modifier, MODIFIERS[name].apply, built, arguments)
    return built


def _unknown_placement(term: str, name: str, zoo: Mapping[str, Entry]) -> str:
    """Error message for an unknown placement, with the closest known name."""
    if name in MODIFIERS:
        return f"placement {term!r} ends in the modifier {name}, which must come before a placement: {name}+pre"
    spellings = {spelling: entry.name for entry in zoo.values() for spelling in (entry.name, entry.title.lower())}
    spellings |= {spelling.replace("-", ""): name for spelling, name in spellings.items()}
    close = difflib.get_close_matches(name, spellings, n=1, cutoff=0.75)
    meant = f"did you mean {spellings[close[0]]}? " if close else ""
    return f"placement {name!r} is not known; {meant}known: {', '.join(entry.example for entry in zoo.values())}"


def _with_own(layer: Layer, own: Projections) -> Layer:
    """Adds the family's own projection norms where the layer has none."""
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
            f"placement {term!r} is not valid; write for example pre, mix(0.25), post*3,pre*9 or qknorm+pre"
        )
    arguments = match["arguments"]
    if arguments == "":
        raise PlacementError(f"placement {term!r} has empty parentheses; omit them, or write for example mix(0.25)")
    return match["name"], tuple(arguments.split(",")) if arguments else ()


def _split(text: str, separator: str) -> list[str]:
    """Splits at separators outside parentheses."""
    return re.split(rf"{re.escape(separator)}(?![^()]*\))", text)


def _split_count(part: str) -> tuple[str, int | None]:
    match = _COUNTED.fullmatch(part)
    return (match["term"], int(match["count"])) if match else (part, None)


def _fill_counts(name: str, counts: list[int | None], layers: int) -> list[int]:
    given = sum(count for count in counts if count is not None)
    open_parts = counts.count(None)
    if open_parts > 1:
        raise PlacementError(f"{name}: only one part of a mixture may omit its count, got {open_parts}")
    if 0 in counts or (open_parts and given == layers):
        raise PlacementError(f"{name}: every part of a mixture needs at least one of the model's {layers} layers")
    if given > layers or (not open_parts and given != layers):
        raise PlacementError(
            f"{name}: its parts have {given} layers, the model has {layers}; change the counts so that they add up"
        )
    return [layers - given if count is None else count for count in counts]
