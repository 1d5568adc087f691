"""The initialisation schemes by name; nothing here needs torch. d is the hidden size, L the number of layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mixln.errors import SettingsError, unknown


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a scheme may know about one weight matrix.

    :param role: `embedding`, `head`, `query`, `key`, `value`, `attention_out`, `feed_forward_in`, `feed_forward_out` or `other`.
    :param shape: (outputs, inputs).
    :param hidden_size: d.
    :param layers: L.
    :param initializer_range: the standard deviation in the model's config, 0.02 by default.
    """

    role: str
    shape: tuple[int, ...]
    hidden_size: int
    layers: int
    initializer_range: float


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A named rule for the standard deviation of every matrix.

    :param std: weight → standard deviation of a zero-mean normal distribution.
    :param truncate: cut the distribution at this many standard deviations; `None` for not at all.
    """

    name: str
    rule: str
    source: str
    std: Callable[[Weight], float]
    truncate: float | None = None


BRANCH_OUTPUTS = ("attention_out", "feed_forward_out")
DEEPNORM_SCALED = ("value", "attention_out", "feed_forward_in", "feed_forward_out")


def _small(weight: Weight) -> float:
    return math.sqrt(2 / (5 * weight.hidden_size))


def _over_depth(std: Callable[[Weight], float]) -> Callable[[Weight], float]:
    """Divides the standard deviation of what writes into the residual stream by √(2L)."""

    def scaled(weight: Weight) -> float:
        return std(weight) / (math.sqrt(2 * weight.layers) if weight.role in BRANCH_OUTPUTS else 1.0)

    return scaled


def _normal(weight: Weight) -> float:
    return weight.initializer_range


def _deepnorm(weight: Weight) -> float:
    if weight.role in ("embedding", "head", "other"):
        return weight.initializer_range
    gain = (8 * weight.layers) ** -0.25 if weight.role in DEEPNORM_SCALED else 1.0
    return gain * math.sqrt(2 / (weight.shape[0] + weight.shape[1]))


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="normal", rule="N(0, 0.02²) everywhere", source="transformers' initializer_range", std=_normal),
        Scheme(name="small", rule="N(0, 2/(5d)) everywhere", source="arXiv:1910.05895", std=_small),
        Scheme(
            name="megatron",
            rule="small, truncated at 3σ; attention and feed-forward outputs divided by √(2L)",
            source="arXiv:2503.04598",
            std=_over_depth(_small),
            truncate=3.0,
        ),
        Scheme(
            name="scaled",
            rule="normal; attention and feed-forward outputs divided by √(2L)",
            source="arXiv:2210.15424",
            std=_over_depth(_normal),
        ),
        Scheme(
            name="deepnorm",
            rule="Xavier normal; gain (8L)^−¼ on v, o and the feed-forward, 1 on q and k; embedding and head normal",
            source="arXiv:2203.00555",
            std=_deepnorm,
        ),
    )
}


def scheme(name: str) -> Scheme:
    """The scheme of this name.

    :raises SettingsError: if there is none.
    """
    if name not in SCHEMES:
        raise SettingsError(unknown("init", name, SCHEMES))
    return SCHEMES[name]
