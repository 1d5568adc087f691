"""One figure a layer, attention and feed-forward apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One figure a sublayer, at one step of the training.

    :param step: optimizer steps done when it was measured.
    :param attention: the attention's figure in each layer, first layer first.
    :param feed_forward: the feed-forward's figure in each layer.
    """

    step: int
    attention: tuple[float, ...]
    feed_forward: tuple[float, ...]
