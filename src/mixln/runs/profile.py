"""One number per layer, for attention and feed-forward separately."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One number per sublayer, first layer first.

    :param attention: number for the attention of each layer; empty if the model's branches are not known.
    :param feed_forward: number for the feed-forward of each layer.
    """

    attention: tuple[float, ...]
    feed_forward: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LayerProfile(Profile):
    """A profile at one step of a training run.

    :param step: optimizer steps completed when it was measured.
    """

    step: int
