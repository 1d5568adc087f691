"""Initialisation, independent of the placement.

Each matrix is drawn from a random generator seeded with its own name, so two placements start with bit-identical values of all
shared weights, on any device and in any order. Norms and gains draw no random numbers. d is the hidden size, L the number of
layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.pytorch_utils import Conv1D

from mixln.nn.schemes import Scheme, Weight, scheme

INITIALISED = "_is_hf_initialized"
"""Attribute with which transformers marks a parameter that must keep its values."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """N(0, std²), the start of a matrix whose authors give its spread."""

    std: float


Start = float | Tensor | Normal
"""Initial value of all entries of a parameter, of each of them, or their distribution."""


@runtime_checkable
class SelfStarting(Protocol):
    """A module that defines the initial values of its parameters, which the family's rules might set differently."""

    def starting_values(self) -> Mapping[str, Start]:
        """Parameter → start; the same under every scheme."""
        ...


@torch.no_grad()
def initialise(
    model: nn.Module,
    name: str,
    *,
    role: Callable[[str], str | tuple[str, ...]],
    canonical: Callable[[str], str],
    hidden_size: int,
    layers: Callable[[str], int],
    initializer_range: float,
    constants: Collection[str] = (),
) -> None:
    """Draws every weight matrix of `model` and sets this package's modules to their initial values; other vectors are unchanged.

    Parameters that transformers marks as initialised, such as those loaded from a checkpoint, keep their values; parameters drawn
    here are marked too. One number is drawn from torch's global generator, so `torch.manual_seed` determines the result. The row
    of an embedding's padding token is zero.

    :param name: see :func:`~mixln.nn.schemes.scheme`.
    :param role: parameter name → role (see :class:`~mixln.nn.schemes.Weight`), or the roles of its equal fused parts.
    :param canonical: parameter name → its name in the stock model, which seeds its generator.
    :param constants: names of matrices that are not trained, such as Whisper's table of sinusoidal positions.
    :param layers: parameter name → L, the number of layers of the stack that it is in.
    """
    rule = scheme(name)
    weight = partial(Weight, hidden_size=hidden_size, initializer_range=initializer_range)
    _set_starting_values(model)
    drawn = [
        (f"{path}.{local}", parameter, module, local)
        for path, module in model.named_modules()
        for local, parameter in module.named_parameters(recurse=False)
        # Vectors, such as biases and the gains of stock norms, keep the values that the family gives them, and so do constants.
        if parameter.ndim >= 2 and not getattr(parameter, INITIALISED, False) and f"{path}.{local}" not in constants
    ]
    # Nothing to draw, for example after loading a checkpoint: leave the global generator untouched.
    if not drawn:
        return
    base = int(torch.randint(2**62, ()).item())
    for full_name, parameter, module, local in drawn:
        if getattr(parameter, INITIALISED, False):
            continue  # tied weights: already drawn under the other name
        roles = role(full_name)
        parts = [roles] if isinstance(roles, str) else list(roles)
        # The output axis. Linear: (outputs, inputs); fused experts: (experts, outputs, inputs); Conv1D: (inputs, outputs).
        axis = -1 if isinstance(module, Conv1D) else 0 if parameter.ndim == 2 else -2
        # On the meta device, chunk computes the shapes of the parts without memory.
        shapes = [tuple(part.shape) for part in torch.empty(parameter.shape, device="meta").chunk(len(parts), dim=axis)]
        generator = _generator(base, canonical(full_name))
        own = module.starting_values().get(local) if isinstance(module, SelfStarting) else None
        depth = layers(full_name)
        weights = [weight(role=part, shape=shape, layers=depth) for shape, part in zip(shapes, parts, strict=True)]
        drawn_parts = [_draw(part, own if isinstance(own, Normal) else rule, generator) for part in weights]
        value = drawn_parts[0] if len(parts) == 1 else torch.cat(drawn_parts, dim=axis)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            value[module.padding_idx] = 0.0
        _set(parameter, value)
        setattr(parameter, INITIALISED, True)


def _set_starting_values(model: nn.Module) -> None:
    """Sets the parameters of this package's modules to their initial values, unless they are marked as initialised."""
    for module in model.modules():
        if isinstance(module, SelfStarting):
            for local, value in module.starting_values().items():
                parameter = getattr(module, local)
                if not isinstance(value, Normal) and not getattr(parameter, INITIALISED, False):
                    _set(parameter, value) if isinstance(value, Tensor) else parameter.fill_(value)
                    setattr(parameter, INITIALISED, True)


def _generator(base: int, name: str) -> torch.Generator:
    # SHA-256 because hash() of a string differs between processes. 8 bytes, signed: the range of manual_seed.
    digest = hashlib.sha256(f"{base}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _draw(weight: Weight, rule: Scheme | Normal, generator: torch.Generator) -> Tensor:
    value = torch.empty(weight.shape)
    if isinstance(rule, Normal):
        return value.normal_(0.0, rule.std, generator=generator)
    std = rule.std(weight)
    if rule.truncate is None:
        return value.normal_(0.0, std, generator=generator)
    limit = rule.truncate * std  # trunc_normal_ takes absolute bounds
    return nn.init.trunc_normal_(value, 0.0, std, -limit, limit, generator=generator)


def _set(parameter: Tensor, value: Tensor) -> None:
    """Copies a value into a parameter; a sharded parameter takes its local shard."""
    if isinstance(parameter, DTensor):
        # Every process has drawn the same full matrix; src_data_rank=None takes the local shard without a broadcast.
        value = distribute_tensor(
            value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    parameter.copy_(value)
