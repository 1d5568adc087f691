"""Risks: combinations that are known to fail, found before any compute is spent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from mixln.placement.records import Layer, Placement
from mixln.placement.zoo import alpha, post_layers
from mixln.records import OPTIONAL

Kind = Literal[
    "alpha-one",
    "no-post-layer",
    "no-warmup",
    "deep-mix",
    "qk-norm-post",
    "hybrid-init",
    "doubly-scaled",
    "foreign-init",
    "sequential",
    "two-stacks",
]
_MIX = re.compile(r"\bmix(?:\(([^()]*)\))?")

DEEP = 32
"""Number of layers at which the Mix-LN paper lowers α (0.0625 for its 32-layer 7B model)."""


DIVIDED = ("scaled", "scaled-small", "megatron")
"""Initialisations that scale the projections that write into the residual stream down with depth."""
OF_THE_METHOD = ("deepnorm", "sub-ln")
"""Initialisations that are part of the published method of the placements that recommend them."""


@dataclass(frozen=True, kw_only=True)
class PlacementRisk:
    """A known problem of training a placement with an init.

    :param term: of `alpha-one` and `no-post-layer`, the part of the placement's text that it is about.
    :param layers: of the model, `post_layers` of which are Post-LN.
    :param own_init: the placement's recommended init.
    :param stock: of `sequential`, the formula of the family's stock layers.
    """

    kind: Kind
    placement: str
    init: str
    layers: int
    post_layers: int
    term: str = ""
    own_init: str | None = None
    stock: str = field(default="", metadata=OPTIONAL)

    @property
    def message(self) -> str:
        """One line, which a Python warning can carry."""
        name, init = self.placement, f"{self.placement} with init {self.init!r}"
        return {
            "alpha-one": f"{self.term} means α = 1, Post-LN in all {self.layers} layers; for one Post-LN layer write post*1,pre",
            "no-post-layer": f"{self.term} rounds to no Post-LN layer in a model of {self.layers} layers: it is Pre-LN",
            "no-warmup": f"{name} has Post-LN layers and no warm-up: Post-LN usually fails without warm-up (arXiv:2002.04745)",
            "deep-mix": f"{name} has {self.post_layers} Post-LN layers in a model of {self.layers} layers: the Mix-LN paper uses "
            "α = 0.0625 at 32 layers, and others report divergence with α = 0.25 (arXiv:2502.05795)",
            "qk-norm-post": f"{name} has QK-norm in Post-LN layers, which is reported to diverge (arXiv:2503.04598)",
            "hybrid-init": f"{init}: HybridNorm is published with 'megatron' and is worse without it (arXiv:2503.04598)",
            "doubly-scaled": f"{name} scales its norms by depth and init {self.init!r} scales again: they are not meant to be combined "
            "(arXiv:2502.05795)",
            "foreign-init": f"{init}: init {self.own_init!r} is part of the published method",
            "sequential": f"{name} runs attention and feed-forward one after the other, but this family side by side, {self.stock}: this "
            "is another architecture, not another position of norms; compare it with placements of the same kind",
            "two-stacks": f"{name} takes the constants of a single stack in encoder and decoder, each by its own number of layers: its "
            "authors publish others for encoder-decoders, which depend on both",
        }[self.kind]


def risks(
    placement: Placement, *, init: str, warms_up: bool = True, stock: Layer | None = None
) -> tuple[PlacementRisk, ...]:
    """Known problems of training this placement with this initialisation and schedule.

    :param init: name of the initialisation that will be used.
    :param warms_up: whether the learning rate has a warm-up.
    :param stock: a stock layer of the model's family; `None` if no family is chosen.
    """
    if placement.encoder:
        found = [risk for part in placement.stacks for risk in risks(part, init=init, warms_up=warms_up, stock=stock)]
        return tuple(dict.fromkeys([*found, *_of_two_stacks(placement, init)]))
    layers = placement.layers
    post = sum(map(is_post, layers))
    risk = partial(
        PlacementRisk,
        placement=placement.name,
        init=init,
        layers=len(layers),
        post_layers=post,
        own_init=placement.init,
    )
    kinds: list[Kind] = ["no-warmup"] if post and not warms_up else []
    if len(layers) >= DEEP and len(layers) / 4 <= post < len(layers):
        kinds.append("deep-mix")
    if any(is_post(layer) and layer.projections.letters == "qk" for layer in layers):
        kinds.append("qk-norm-post")
    kinds += _of_init(placement, init.rpartition("+")[2])
    parallel = "" if stock is None or not stock.parallel or all(layer.parallel for layer in layers) else stock.formula
    return (
        *(risk(kind=kind, term=term) for kind, term in _of_shares(placement)),
        *(risk(kind=kind) for kind in kinds),
        *((risk(kind="sequential", stock=parallel),) if parallel else ()),
    )


def _of_two_stacks(placement: Placement, init: str) -> Iterator[PlacementRisk]:
    """Methods whose constants are others in an encoder-decoder."""
    if placement.init in OF_THE_METHOD:
        depth, post = len(placement.layers), sum(map(is_post, placement.layers))
        yield PlacementRisk(kind="two-stacks", placement=placement.name, init=init, layers=depth, post_layers=post)


def _of_shares(placement: Placement) -> Iterator[tuple[Kind, str]]:
    """Terms whose share of Post-LN layers comes to all layers, or to none."""
    for term in _MIX.finditer(placement.name):
        if term[1] == "1":
            yield "alpha-one", term[0]
        share = alpha(term[1] or "0.25")
        if share and not post_layers(share, len(placement.layers)):
            yield "no-post-layer", term[0]


def _of_init(placement: Placement, scheme: str) -> Iterator[Kind]:
    """Initialisations that do not belong to the placement."""
    if scheme != "megatron" and any(_is_hybrid(layer) for layer in placement.layers):
        yield "hybrid-init"
    if scheme in DIVIDED and any(layer.attention.branch_scale != 1.0 for layer in placement.layers):
        yield "doubly-scaled"
    if placement.init in OF_THE_METHOD and scheme != placement.init:
        yield "foreign-init"


def is_post(layer: Layer) -> bool:
    """Whether both sublayers end in a norm on the stream and have an unscaled skip from their input (Post-LN)."""
    return not layer.span and all(
        sub.stream_out and sub.skip_scale == 1.0 and sub.skip_gain is None and sub.rate is None
        for sub in layer.sublayers
    )


def _is_hybrid(layer: Layer) -> bool:
    return layer.attention.stream_out is not None and layer.feed_forward.stream_out is None
