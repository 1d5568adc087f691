"""Residual streams with more than one state. Shapes: B batch, T tokens, D hidden size, S states.

A host's loop passes one tensor from layer to layer. A layer with several states packs them into it along the features,
(B, T, S·D); where there is a state that the next layer reads, it is the last. The first layer expands the embeddings. A fold
before the final norm reduces the states to (B, T, D), after whichever layer the stack ends. So gradient checkpointing, caches,
device maps and early exit work as with a single stream.
"""

from __future__ import annotations

from typing import NamedTuple

from mixln.nn.residual import PlacedLayer
from mixln.nn.streams.anchored import AnchoredLayer
from mixln.nn.streams.depth import DepthFold, DepthLayer, NormedDepthFold, NormedDepthLayer
from mixln.nn.streams.dual import ResiDualFold, ResiDualLayer, SiameseFold, SiameseLayer
from mixln.nn.streams.fold import Fold
from mixln.nn.streams.history import Combination, DenseFormerFold, DenseFormerLayer, DlclFold, DlclLayer
from mixln.nn.streams.maps import CONNECTIONS, ConnectedFold, ConnectedLayer

__all__ = ["STREAMS", "Combination", "Fold", "Streams"]


class Streams(NamedTuple):
    """The layer class of a kind of stream, and the fold after the last layer, which a single stream needs only with values beside it."""

    layer: type[PlacedLayer]
    fold: type[Fold]


STREAMS = {
    "single": Streams(PlacedLayer, Fold),
    "anchored": Streams(AnchoredLayer, Fold),
    "resi-dual": Streams(ResiDualLayer, ResiDualFold),
    "dlcl": Streams(DlclLayer, DlclFold),
    **dict.fromkeys(CONNECTIONS, Streams(ConnectedLayer, ConnectedFold)),
    "siamese": Streams(SiameseLayer, SiameseFold),
    "attnres": Streams(DepthLayer, DepthFold),
    "attnres-normed": Streams(NormedDepthLayer, NormedDepthFold),
    "denseformer": Streams(DenseFormerLayer, DenseFormerFold),
}
"""`Placement.streams` → classes."""
