"""Initialisation: an axis of its own, independent of the placement.

Every matrix draws from a random generator seeded by its own name, so two placements start with bit-identical values of
all weights that they share, on any device, in any order. Norms and gains draw no random numbers. d is the hidden size,
L the number of layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.pytorch_utils import Conv1D

from mixln.nn.schemes import Scheme, Weight, scheme

INITIALISED = "_is_hf_initialized"
"""The attribute by which transformers marks a parameter that must keep its values."""


@runtime_checkable
class SelfStarting(Protocol):
    """A module that says what its own parameters start at: those of a family would start them by its own rules."""

    def starting_values(self) -> dict[str, float]:
        """Parameter → the value of all its entries."""
        ...


@torch.no_grad()
def initialise(
    model: nn.Module,
    name: str,
    *,
    role: Callable[[str], str | tuple[str, ...]],
    canonical: Callable[[str], str],
    hidden_size: int,
    layers: int,
    initializer_range: float,
) -> None:
    """Draws every weight matrix of `model` anew and sets the modules of this package to their start; other vectors are left as they are.

    The only use of torch's global random state is one number, so that `torch.manual_seed` decides the outcome.
    Parameters that transformers marks as initialised, as it does those loaded from a checkpoint, keep their values, and
    those drawn here are marked so. The row of an embedding's padding token is zero.

    :param name: see :func:`~mixln.nn.schemes.scheme`.
    :param role: parameter name → role (see :class:`Weight`), or those of the equal parts that lie side by side in it.
    :param canonical: parameter name → its name in the unplaced model, which seeds it.
    """
    rule = scheme(name)
    for module in model.modules():
        if isinstance(module, SelfStarting):
            for local, value in module.starting_values().items():
                parameter = getattr(module, local)
                if not getattr(parameter, INITIALISED, False):
                    parameter.fill_(value)
                    setattr(parameter, INITIALISED, True)
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
        found = role(full_name)
        generator = _generator(base, canonical(full_name))
        parts = [found] if isinstance(found, str) else list(found)
        # A linear map keeps its outputs in the last axis but one, behind those of the experts; Conv1D keeps them in the last.
        axis = -1 if isinstance(module, Conv1D) else 0 if parameter.ndim == 2 else -2
        shapes = [part.shape for part in torch.empty(parameter.shape, device="meta").chunk(len(parts), dim=axis)]
        drawn_parts = []
        for shape, of_part in zip(shapes, parts, strict=True):
            weight = Weight(
                role=of_part,
                shape=tuple(shape),
                hidden_size=hidden_size,
                layers=layers,
                initializer_range=initializer_range,
            )
            drawn_parts.append(_draw(weight, rule, generator))
        value = drawn_parts[0] if len(parts) == 1 else torch.cat(drawn_parts, dim=axis)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            value[module.padding_idx] = 0.0
        _set(parameter, value)
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


def _set(parameter: Tensor, value: Tensor) -> None:
    """Of a parameter that is spread over processes, each takes its share."""
    if isinstance(parameter, DTensor):
        value = distribute_tensor(
            value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    parameter.copy_(value)
