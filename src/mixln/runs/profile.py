"""One figure a layer, attention and feed-forward apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One figure a sublayer, first layer first.

    :param attention: the attention's figure in each layer; empty where the model's branches are not known.
    :param feed_forward: the feed-forward's figure in each layer.
    """

    attention: tuple[float, ...]
    feed_forward: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LayerProfile(Profile):
    """A profile at one step of the training.

    :param step: optimizer steps done when it was measured.
    """

    step: int
