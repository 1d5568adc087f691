"""Initialisation: an axis of its own, independent of the placement.

Every matrix draws from a random generator seeded by its own name, so two placements start with bit-identical values of
all weights that they share, on any device, in any order. Norms draw no random numbers. d is the hidden size, L the number of layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mixln.nn.schemes import Scheme, Weight, scheme

INITIALISED = "_is_hf_initialized"
"""The attribute by which transformers marks a parameter that must keep its values."""


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
