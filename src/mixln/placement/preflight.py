"""Warnings about combinations that are known to fail, issued before any compute is spent."""

from __future__ import annotations

import re

from mixln.placement.records import Layer, Placement
from mixln.placement.zoo import alpha, post_layers

_MIX = re.compile(r"\bmix(?:\(([^()]*)\))?")

DEEP = 32
"""Number of layers at which the Mix-LN paper lowers α (0.0625 for its 32-layer 7B model)."""


DIVIDED = ("scaled", "scaled-small", "megatron")
"""Initialisations that scale the projections that write into the residual stream down with depth."""
OF_THE_METHOD = ("deepnorm", "sub-ln")
"""Initialisations that are part of the published method of the placements that recommend them."""


def warnings(placement: Placement, *, init: str, warms_up: bool = True) -> list[str]:
    """Known problems of training this placement with this initialisation and schedule, one sentence each.

    :param init: name of the initialisation that will be used.
    :param warms_up: whether the learning rate has a warm-up.
    """
    layers, problems, scheme = placement.layers, [], init.rpartition("+")[2]
    post = [layer for layer in layers if is_post(layer)]
    name = placement.name
    for term in _MIX.finditer(name):
        if term[1] == "1":
            problems.append(
                f"{term[0]} means α = 1, Post-LN in all {len(layers)} layers; for one Post-LN layer write post*1,pre"
            )
        share = alpha(term[1] or "0.25")
        if share and not post_layers(share, len(layers)):
            problems.append(f"{term[0]} rounds to no Post-LN layer in a model of {len(layers)} layers: it is Pre-LN")
    if post and not warms_up:
        problems.append(
            f"{name} has Post-LN layers and no warm-up: Post-LN usually fails without warm-up (arXiv:2002.04745)"
        )
    if len(layers) >= DEEP and len(layers) / 4 <= len(post) < len(layers):
        problems.append(
            f"{name} has {len(post)} Post-LN layers in a model of {len(layers)} layers: "
            "the Mix-LN paper uses α = 0.0625 at 32 layers, and others report divergence with α = 0.25 (arXiv:2502.05795)"
        )
    if any(is_post(layer) and layer.projections.letters == "qk" for layer in layers):
        problems.append(f"{name} has QK-norm in Post-LN layers, which is reported to diverge (arXiv:2503.04598)")
    if scheme != "megatron" and any(_is_hybrid(layer) for layer in layers):
        problems.append(
            f"{name} with init {init!r}: HybridNorm is published with 'megatron' and is worse without it (arXiv:2503.04598)"
        )
    if scheme in DIVIDED and any(layer.attention.branch_scale != 1.0 for layer in layers):
        problems.append(
            f"{name} scales its norms by depth and init {init!r} scales again: they are not meant to be combined (arXiv:2502.05795)"
        )
    if placement.init in OF_THE_METHOD and scheme != placement.init:
        problems.append(f"{name} with init {init!r}: init {placement.init!r} is part of the published method")
    return problems


def is_post(layer: Layer) -> bool:
    """Whether both sublayers end in a norm on the stream and have an unscaled skip (Post-LN)."""
    return all(sub.stream_out and sub.skip_scale == 1.0 and sub.skip_gain is None for sub in layer.sublayers)


def _is_hybrid(layer: Layer) -> bool:
    return layer.attention.stream_out is not None and layer.feed_forward.stream_out is None
