"""Initialisation: an axis of its own, independent of the placement.

Every matrix draws from a random generator seeded by its own name, so two placements start with bit-identical values of
all weights that they share, on any device, in any order. Norms draw no random numbers. d is the hidden size, L the number of layers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


INITIALISED = "_is_hf_initialized"
"""The attribute by which transformers marks a parameter that must keep its values."""
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


@torch.no_grad()
def initialise(
    model: nn.Module,
    name: str,
    *,
    role: Callable[[str], str],
    canonical: Callable[[str], str],
    hidden_size: int,
    layers: int,
    initializer_range: float,
) -> None:
    """Draws every weight matrix of `model` anew; vectors (gains, biases) are left as they are.

    The only use of torch's global random state is one number, so that `torch.manual_seed` decides the outcome.
    Parameters that transformers marks as initialised, as it does those loaded from a checkpoint, keep their values, and
    those drawn here are marked so. The row of an embedding's padding token is zero.

    :param name: a name of :data:`SCHEMES`.
    :param role: parameter name → role (see :class:`Weight`).
    :param canonical: parameter name → its name in the unplaced model, which seeds it.
    """
    rule = scheme(name)
    drawn = [
        (f"{path}.{local}", parameter, module)
        for path, module in model.named_modules()
        for local, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and not getattr(parameter, INITIALISED, False)
    ]
    if not drawn:
        return
    base = int(torch.randint(2**62, ()).item())
    for full_name, parameter, module in drawn:
        if getattr(parameter, INITIALISED, False):
            continue  # tied to one that has been drawn
        weight = Weight(
            role=role(full_name),
            shape=tuple(parameter.shape),
            hidden_size=hidden_size,
            layers=layers,
            initializer_range=initializer_range,
        )
        parameter.copy_(_draw(weight, rule, _generator(base, canonical(full_name))))
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            parameter[module.padding_idx] = 0.0
        setattr(parameter, INITIALISED, True)


def _generator(base: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{base}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _draw(weight: Weight, rule: Scheme, generator: torch.Generator) -> Tensor:
    std = rule.std(weight)
    value = torch.empty(weight.shape)
    if rule.truncate is None:
        return value.normal_(0.0, std, generator=generator)
    limit = rule.truncate * std
    return nn.init.trunc_normal_(value, 0.0, std, -limit, limit, generator=generator)
