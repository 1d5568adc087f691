"""The named initialisation schemes. Nothing here needs torch. d is the hidden size, L the number of layers.

normal                     a scheme
embedding(0.632)+normal    with a separate standard deviation for the embeddings
scaled-embed+megatron      with the embeddings multiplied by √d
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mixln.errors import SettingsError, unknown


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The properties of a weight matrix that a scheme may use.

    :param role: `embedding`, `head`, `query`, `key`, `value`, `attention_out`, `feed_forward_in`, `feed_forward_out` or `other`.
    :param shape: (outputs, inputs) or (inputs, outputs), preceded by the number of experts if they are fused.
    :param hidden_size: d.
    :param layers: L.
    :param initializer_range: standard deviation in the model's config, by default 0.02.
    """

    role: str
    shape: tuple[int, ...]
    hidden_size: int
    layers: int
    initializer_range: float


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A named rule for the standard deviation of every weight matrix.

    :param std: weight → standard deviation of a zero-mean normal distribution.
    :param truncate: truncate the distribution at this many standard deviations; `None` for no truncation.
    """

    name: str
    rule: str
    source: str
    std: Callable[[Weight], float]
    truncate: float | None = None


BRANCH_OUTPUTS = ("attention_out", "feed_forward_out")
"""Roles of the projections that write into the residual stream."""
GAINED = ("value", "attention_out", "feed_forward_in", "feed_forward_out")
"""Roles with a gain in DeepNorm and Sub-LN: not q and k, which only enter the softmax."""


def _small(weight: Weight) -> float:
    # Xavier normal for a map from d to 4d features, √(2 / (d + 4d)), applied to every matrix.
    return math.sqrt(2 / (5 * weight.hidden_size))


def _over_depth(std: Callable[[Weight], float]) -> Callable[[Weight], float]:
    """Divides the standard deviation of the branches' output projections by √(2L)."""

    # The sum of 2L independent branches then has about the variance of one unscaled branch.
    def scaled(weight: Weight) -> float:
        return std(weight) / (math.sqrt(2 * weight.layers) if weight.role in BRANCH_OUTPUTS else 1.0)

    return scaled


def _normal(weight: Weight) -> float:
    return weight.initializer_range


def _xavier(gain: Callable[[int], float]) -> Callable[[Weight], float]:
    """Xavier normal with a gain, a function of L, on the roles in :data:`GAINED`; weights outside the layers are normal."""

    def std(weight: Weight) -> float:
        if weight.role in ("embedding", "head", "other"):
            return weight.initializer_range
        factor = gain(weight.layers) if weight.role in GAINED else 1.0
        # The last two axes are inputs and outputs in either order; a leading axis counts fused experts.
        return factor * math.sqrt(2 / (weight.shape[-2] + weight.shape[-1]))

    return std


def _outputs(std: Callable[[Weight], float]) -> Callable[[Weight], float]:
    """Normal, with another rule for the branches' output projections."""
    return lambda weight: std(weight) if weight.role in BRANCH_OUTPUTS else _normal(weight)


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="normal",
            rule="N(0, σ²) everywhere, σ the config's initializer_range, by default 0.02",
            source="transformers",
            std=_normal,
        ),
        Scheme(name="small", rule="N(0, 2/(5d)) everywhere", source="arXiv:1910.05895", std=_small),
        Scheme(
            name="megatron",
            rule="small, truncated at 3σ; output projections of attention and feed-forward divided by √(2L)",
            source="arXiv:2503.04598",
            std=_over_depth(_small),
            truncate=3.0,
        ),
        Scheme(
            name="scaled",
            rule="normal; output projections of attention and feed-forward divided by √(2L)",
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
            rule="normal; output projections of attention and feed-forward N(0, 2/(5d)/(2L))",
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
            f"init embedding({sigma}): σ must be a number above 0, got {sigma!r}; write for example embedding(0.632)+normal"
        )
    return replace(rule, std=lambda weight: value if weight.role == "embedding" else rule.std(weight))


def _scaled_embed(rule: Scheme) -> Scheme:
    def std(weight: Weight) -> float:
        return rule.std(weight) * (math.sqrt(weight.hidden_size) if weight.role == "embedding" else 1.0)

    return replace(rule, std=std)


@dataclass(frozen=True, kw_only=True)
class InitModifier:
    """A change that applies to any scheme, written before it: `scaled-embed+normal`."""

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
            rule="token embeddings N(0, σ²), and a head tied to them",
            source="the Mix-LN authors' code uses 0.632",
            apply=_embedding,
            arguments="(σ)",
        ),
        InitModifier(
            name="scaled-embed",
            rule="token embeddings multiplied by √d, and a head tied to them",
            source="arXiv:2312.16903",
            apply=_scaled_embed,
        ),
    )
}

_MODIFIER = re.compile(r"(?P<name>[a-z-]+)(?:\((?P<argument>[^()]*)\))?")


def scheme(text: str) -> Scheme:
    """Returns the scheme named by `text`, for example `megatron` or `embedding(0.632)+normal`.

    :raises SettingsError: if the scheme or a modifier is unknown.
    """
    name = re.sub(r"\s+", "", text)
    *modifiers, base = name.split("+")
    if base not in SCHEMES:
        raise SettingsError(unknown("init", base, SCHEMES))
    built = SCHEMES[base]
    for modifier in reversed(modifiers):  # right to left, as for placements
        match = _MODIFIER.fullmatch(modifier)
        if match is None or match["name"] not in INIT_MODIFIERS:
            raise SettingsError(unknown("init modifier", modifier, INIT_MODIFIERS))
        entry, argument = INIT_MODIFIERS[match["name"]], match["argument"]
        if argument is not None and not entry.arguments:
            raise SettingsError(f"init {modifier}: takes no argument, got {argument!r}")
        built = entry.apply(built, *([] if argument is None else [argument]))
    return replace(built, name=name)
