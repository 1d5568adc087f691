"""The placements by name: each is a factory from the number of layers to one record a layer.

Formulas: N is a norm, A attention, F the feed-forward, L the number of layers, l the 1-based layer index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from mixln.errors import PlacementError
from mixln.placement.records import Layer, Norm, Placement, ProjectionNorm, Projections, Sublayer

HOST = Norm()

PRE = Layer(attention=Sublayer(branch_in=HOST), feed_forward=Sublayer(branch_in=HOST))
POST = Layer(attention=Sublayer(stream_out=HOST), feed_forward=Sublayer(stream_out=HOST))
SANDWICH = Layer(
    attention=Sublayer(branch_in=HOST, branch_out=HOST), feed_forward=Sublayer(branch_in=HOST, branch_out=HOST)
)
QKV_NORM = Projections(query=ProjectionNorm(), key=ProjectionNorm(), value=ProjectionNorm())
HYBRID = Layer(attention=Sublayer(stream_out=HOST), projections=QKV_NORM)
FULL_WIDTH = ProjectionNorm(width="full")
RES_POST = Layer(
    attention=Sublayer(branch_out=HOST),
    feed_forward=Sublayer(branch_out=HOST),
    projections=Projections(query=FULL_WIDTH, key=FULL_WIDTH),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named placement.

    :param build: (number of layers, arguments as text) → placement; the arguments are what stands in brackets.
    :param arguments: how the arguments are written, for example `(α)`; empty if it takes none.
    """

    name: str
    title: str
    formula: str
    source: str
    build: Callable[..., Placement]
    arguments: str = ""
    init: str = "normal"
    notes: str = ""


def post_layers(share: Fraction | int, layers: int) -> int:
    """⌊αL⌋, the number of Post-LN layers of Mix-LN, in exact arithmetic.

    :param share: α, an exact fraction of the layers in [0, 1], or (as `int`, 2 and more) their count.
    :raises PlacementError: if it lies outside [0, 1] or is a count above the number of layers.
    """
    if isinstance(share, int) and share > 1:
        if share > layers:
            raise PlacementError(
                f"mix({share}): the count of Post-LN layers must be at most the model's {layers}, got {share}"
            )
        return share
    if not 0 <= share <= 1:
        raise PlacementError(
            f"mix: α must lie in [0, 1], got {float(share):g}; it is the share of Post-LN layers, or an integer count of 2 and more"
        )
    return math.floor(share * layers)


def _uniform(layer: Layer) -> Callable[[int], Placement]:
    def build(layers: int) -> Placement:
        return Placement(name="", layers=(layer,) * layers)

    return build


def _mix(layers: int, share: str = "0.25") -> Placement:
    count = post_layers(alpha(share), layers)
    return Placement(name="", layers=(POST,) * count + (PRE,) * (layers - count))


def _hybrid_star(layers: int) -> Placement:
    first = replace(PRE, projections=QKV_NORM)
    return Placement(name="", layers=(first,) + (HYBRID,) * (layers - 1))


def _deepnorm(layers: int) -> Placement:
    sublayer = Sublayer(stream_out=HOST, skip_scale=(2 * layers) ** 0.25)
    return Placement(name="", layers=(Layer(attention=sublayer, feed_forward=sublayer),) * layers)


def _peri(layers: int) -> Placement:
    return Placement(name="", layers=(SANDWICH,) * layers, embedding_norm=HOST)


def _lns(layers: int) -> Placement:
    def scaled(index: int) -> Layer:
        sublayer = Sublayer(branch_in=HOST, branch_scale=1 / math.sqrt(index))
        return Layer(attention=sublayer, feed_forward=sublayer)

    return Placement(name="", layers=tuple(scaled(index) for index in range(1, layers + 1)))


def _group_pre(layers: int, groups: str = "4") -> Placement:
    return _group(Placement(name="", layers=(PRE,) * layers), groups)


ZOO: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="pre",
            title="Pre-LN",
            formula="x ← x + A(N(x));  x ← x + F(N(x))",
            source="arXiv:2002.04745",
            build=_uniform(PRE),
            notes="The stock placement of Llama and nearly every LLM.",
        ),
        Entry(
            name="post",
            title="Post-LN",
            formula="x ← N(x + A(x));  x ← N(x + F(x))",
            source="arXiv:1706.03762",
            build=_uniform(POST),
            notes="Needs warm-up.",
        ),
        Entry(
            name="mix",
            title="Mix-LN",
            arguments="(α) or (count)",
            formula="layers 1..⌊αL⌋ Post-LN, the rest Pre-LN",
            source="arXiv:2412.13795",
            build=_mix,
            notes="α is a share of the layers in [0, 1], 0.25 if left out; an integer of 2 and more is a count of layers.",
        ),
        Entry(
            name="hybrid",
            title="HybridNorm",
            formula="x ← N(x + A_qkv(x));  x ← x + F(x)",
            source="arXiv:2503.04598",
            build=_uniform(HYBRID),
            init="megatron",
            notes="Norms per head on q, k and v before rotary embedding; the Post-Norm of the feed-forward reads n = N(y), out = n + F(n).",
        ),
        Entry(
            name="hybrid*",
            title="HybridNorm*",
            formula="layer 1: x ← x + A_qkv(N(x));  x ← x + F(N(x));  layers 2..L: HybridNorm",
            source="arXiv:2503.04598",
            build=_hybrid_star,
            init="megatron",
            notes="The variant that wins in its paper.",
        ),
        Entry(
            name="deepnorm",
            title="DeepNorm",
            formula="x ← N(αx + A(x));  x ← N(αx + F(x)),  α = (2L)^¼",
            source="arXiv:2203.00555",
            build=_deepnorm,
            init="deepnorm",
            notes="Decoder-only constants; its init scales v, o and the feed-forward by (8L)^−¼.",
        ),
        Entry(
            name="sandwich",
            title="Sandwich-LN",
            formula="x ← x + N(A(N(x)));  x ← x + N(F(N(x)))",
            source="arXiv:2105.13290",
            build=_uniform(SANDWICH),
        ),
        Entry(
            name="peri",
            title="Peri-LN",
            formula="x ← N(x) once;  x ← x + N(A(N(x)));  x ← x + N(F(N(x)))",
            source="arXiv:2502.02732",
            build=_peri,
            notes="Sandwich-LN with a norm on the embeddings.",
        ),
        Entry(
            name="res-post",
            title="res-post-norm",
            formula="x ← x + N(A_qk(x));  x ← x + N(F(x))",
            source="OLMo 2, arXiv:2501.00656",
            build=_uniform(RES_POST),
            notes="With norms over the full width of q and k, as in OLMo 2.",
        ),
        Entry(
            name="lns",
            title="LayerNorm Scaling",
            formula="x ← x + A(N(x)/√l);  x ← x + F(N(x)/√l)",
            source="arXiv:2502.05795",
            build=_lns,
            notes="l is the layer's index, the same for both sublayers. Not with a scaled init.",
        ),
        Entry(
            name="group",
            title="Group-LN",
            arguments="(groups)",
            formula="Pre-LN whose norm works in groups of features",
            source="arXiv:1803.08494",
            build=_group_pre,
            notes="4 groups if left out; they must divide the hidden size.",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Modifier:
    """Something that changes any placement, written in front of it: `qknorm+pre`."""

    name: str
    title: str
    source: str
    apply: Callable[..., Placement]
    arguments: str = ""


def _projection_norms(letters: str) -> Callable[[Placement], Placement]:
    slots = {"q": "query", "k": "key", "v": "value", "c": "context"}
    added = {slots[letter]: ProjectionNorm() for letter in letters}

    def apply(placement: Placement) -> Placement:
        layers = (replace(layer, projections=replace(layer.projections, **added)) for layer in placement.layers)
        return replace(placement, layers=tuple(layers))

    return apply


def _group(placement: Placement, groups: str = "4") -> Placement:
    if not groups.isdecimal() or int(groups) < 1:
        raise PlacementError(f"group({groups}): groups must be a whole number of at least 1, got {groups!r}")
    norm = Norm(kind="group", groups=int(groups))

    def regroup(sublayer: Sublayer) -> Sublayer:
        slots = ("branch_in", "branch_out", "stream_out")
        return replace(sublayer, **{slot: norm for slot in slots if getattr(sublayer, slot) is not None})

    layers = (
        replace(layer, attention=regroup(layer.attention), feed_forward=regroup(layer.feed_forward))
        for layer in placement.layers
    )
    return replace(placement, layers=tuple(layers))


MODIFIERS: dict[str, Modifier] = {
    modifier.name: modifier
    for modifier in (
        Modifier(
            name="qknorm",
            title="norms per head on q and k",
            source="arXiv:2010.04245",
            apply=_projection_norms("qk"),
        ),
        Modifier(
            name="qkvnorm",
            title="norms per head on q, k and v",
            source="arXiv:2503.04598",
            apply=_projection_norms("qkv"),
        ),
        Modifier(
            name="group",
            title="norms of the residual sublayers work in groups of features",
            source="arXiv:1803.08494",
            apply=_group,
            arguments="(groups)",
        ),
    )
}


_NUMBER = re.compile(r"[+-]?(\d{1,9}(\.\d{0,18})?|\.\d{1,18}|\d{1,9}/\d{1,9})(e-?\d{1,2})?")


def alpha(text: str) -> Fraction | int:
    """`0.25`, `1/4` or `3` as an exact number; 0 and 1 are the ends of the range of α, larger integers are counts.

    :raises PlacementError: if it is no such number.
    """
    try:
        if _NUMBER.fullmatch(text):
            return int(text) if text.lstrip("+-").isdecimal() else Fraction(text)
    except (ValueError, ZeroDivisionError):
        pass
    raise PlacementError(f"mix({text}): α must be a number such as 0.25, 1/4 or a count such as 3, got {text!r}")
