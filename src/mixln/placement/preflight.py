"""Warnings about combinations that are known to go wrong, given before any compute is spent."""

from __future__ import annotations

import re

from mixln.placement.records import Layer, Placement
from mixln.placement.zoo import alpha, post_layers

_MIX = re.compile(r"\bmix(?:\(([^()]*)\))?")

DEEP = 32
"""Layers from which the Mix-LN paper itself lowers α (0.0625 at its 32-layer 7B model)."""


DIVIDED = ("scaled", "scaled-small", "megatron")
"""Initialisations that divide what writes into the residual stream by the depth."""
OF_THE_METHOD = ("deepnorm", "sub-ln")
"""Initialisations without which the placement that names them is not the published method."""


def warnings(placement: Placement, *, init: str, warms_up: bool = True) -> list[str]:
    """What is known against training this placement with this init and warm-up, one sentence each.

    :param init: name of the initialisation that will be used.
    :param warms_up: whether the learning rate has a warm-up.
    """
    layers, found, scheme = placement.layers, [], init.rpartition("+")[2]
    post = [layer for layer in layers if is_post(layer)]
    name = placement.name
    for term in _MIX.finditer(name):
        if term[1] == "1":
            found.append(f"{term[0]} is α = 1, Post-LN in all {len(layers)} layers; for one layer write post*1,pre")
        share = alpha(term[1] or "0.25")
        if share and not post_layers(share, len(layers)):
            found.append(f"{term[0]} rounds to no Post-LN layer among {len(layers)}: it is Pre-LN")
    if post and not warms_up:
        found.append(f"{name} has Post-LN layers and no warm-up: Post-LN usually fails without (arXiv:2002.04745)")
    if len(layers) >= DEEP and len(layers) / 4 <= len(post) < len(layers):
        found.append(
            f"{name} has {len(post)} Post-LN layers below Pre-LN in a model of {len(layers)}: "
            "the Mix-LN paper uses α = 0.0625 at 32 layers, and α = 0.25 diverged for others (arXiv:2502.05795)"
        )
    if any(is_post(layer) and layer.projections.letters == "qk" for layer in layers):
        found.append(f"{name} has QK-norm in Post-LN layers: reported to diverge (arXiv:2503.04598)")
    if scheme != "megatron" and any(_is_hybrid(layer) for layer in layers):
        found.append(
            f"{name} with init {init!r}: HybridNorm is published with 'megatron' and loses without (arXiv:2503.04598)"
        )
    if scheme in DIVIDED and any(layer.attention.branch_scale != 1.0 for layer in layers):
        found.append(
            f"{name} scales its norms by depth and init {init!r} scales again: not meant together (arXiv:2502.05795)"
        )
    if placement.init in OF_THE_METHOD and scheme != placement.init:
        found.append(f"{name} with init {init!r}: its init {placement.init!r} is a part of the method")
    return found


def is_post(layer: Layer) -> bool:
    """Whether both sublayers end in a norm of the stream, with an unscaled skip (Post-LN)."""
    return all(sub.stream_out and sub.skip_scale == 1.0 and sub.skip_gain is None for sub in layer.sublayers)


def _is_hybrid(layer: Layer) -> bool:
    return layer.attention.stream_out is not None and layer.feed_forward.stream_out is None
