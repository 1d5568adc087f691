"""The initialisation schemes by name; nothing here needs torch. d is the hidden size, L the number of layers.

normal                     a scheme
embedding(0.632)+normal    with the embeddings at a standard deviation of their own
scaled-embed+megatron      with the embeddings √d times as large
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mixln.errors import SettingsError, unknown


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a scheme may know about one weight matrix.

    :param role: `embedding`, `head`, `query`, `key`, `value`, `attention_out`, `feed_forward_in`, `feed_forward_out` or `other`.
    :param shape: (outputs, inputs) or (inputs, outputs), behind the number of experts where there are several.
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
GAINED = ("value", "attention_out", "feed_forward_in", "feed_forward_out")


def _small(weight: Weight) -> float:
    return math.sqrt(2 / (5 * weight.hidden_size))


def _over_depth(std: Callable[[Weight], float]) -> Callable[[Weight], float]:
    """Divides the standard deviation of what writes into the residual stream by √(2L)."""

    def scaled(weight: Weight) -> float:
        return std(weight) / (math.sqrt(2 * weight.layers) if weight.role in BRANCH_OUTPUTS else 1.0)

    return scaled


def _normal(weight: Weight) -> float:
    return weight.initializer_range


def _xavier(gain: Callable[[int], float]) -> Callable[[Weight], float]:
    """Xavier normal, with `gain` of the number of layers on the weights in :data:`GAINED`; what lies outside the layers is normal."""

    def std(weight: Weight) -> float:
        if weight.role in ("embedding", "head", "other"):
            return weight.initializer_range
        factor = gain(weight.layers) if weight.role in GAINED else 1.0
        return factor * math.sqrt(2 / (weight.shape[-2] + weight.shape[-1]))

    return std


def _outputs(std: Callable[[Weight], float]) -> Callable[[Weight], float]:
    """Normal, with another rule for what writes into the residual stream."""
    return lambda weight: std(weight) if weight.role in BRANCH_OUTPUTS else _normal(weight)


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="normal",
            rule="N(0, σ²) everywhere, σ the config's initializer_range, 0.02",
            source="transformers",
            std=_normal,
        ),
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
            std=_xavier(lambda layers: (8 * layers) ** -0.25),
        ),
        Scheme(
            name="sub-ln",
            rule="Xavier normal; gain √ln(2L) on v, o and the feed-forward, 1 on q and k; embedding and head normal",
            source="arXiv:2210.06423",
            std=_xavier(lambda layers: math.sqrt(math.log(2 * layers))),
        ),
        Scheme(
            name="scaled-small",
            rule="normal; attention and feed-forward outputs N(0, 2/(5d)/(2L))",
            source="Table 8 and appendix B of arXiv:2412.13795",
            std=_outputs(_over_depth(_small)),
        ),
    )
}


def _embedding(rule: Scheme, sigma: str = "") -> Scheme:
    try:
        value = float(sigma)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise SettingsError(
            f"init embedding({sigma}): needs a standard deviation above 0, got {sigma!r}; for example embedding(0.632)+normal"
        )
    return replace(rule, std=lambda weight: value if weight.role == "embedding" else rule.std(weight))


def _scaled_embed(rule: Scheme) -> Scheme:
    def std(weight: Weight) -> float:
        return rule.std(weight) * (math.sqrt(weight.hidden_size) if weight.role == "embedding" else 1.0)

    return replace(rule, std=std)


@dataclass(frozen=True, kw_only=True)
class InitModifier:
    """Something that changes any scheme, written in front of it: `scaled-embed+normal`."""

    name: str
    rule: str
    source: str
    apply: Callable[..., Scheme]
    arguments: str = ""


INIT_MODIFIERS: dict[str, InitModifier] = {
    modifier.name: modifier
    for modifier in (
        InitModifier(
            name="embedding",
            rule="token embeddings N(0, σ²); a head tied to them follows",
            source="the Mix-LN authors' code uses 0.632",
            apply=_embedding,
            arguments="(σ)",
        ),
        InitModifier(
            name="scaled-embed",
            rule="token embeddings √d times as large; a head tied to them follows",
            source="arXiv:2312.16903",
            apply=_scaled_embed,
        ),
    )
}

_MODIFIER = re.compile(r"(?P<name>[a-z-]+)(?:\((?P<argument>[^()]*)\))?")


def scheme(text: str) -> Scheme:
    """The scheme that `text` names, for example `megatron` or `embedding(0.632)+normal`.

    :raises SettingsError: if there is none.
    """
    name = re.sub(r"\s+", "", text)
    *modifiers, base = name.split("+")
    if base not in SCHEMES:
        raise SettingsError(unknown("init", base, SCHEMES))
    built = SCHEMES[base]
    for modifier in reversed(modifiers):
        match = _MODIFIER.fullmatch(modifier)
        if match is None or match["name"] not in INIT_MODIFIERS:
            raise SettingsError(unknown("init modifier", modifier, INIT_MODIFIERS))
        found, argument = INIT_MODIFIERS[match["name"]], match["argument"]
        if argument is not None and not found.arguments:
            raise SettingsError(f"init {modifier}: takes no argument, got {argument!r}")
        built = found.apply(built, *([] if argument is None else [argument]))
    return replace(built, name=name)
