"""Modules of nGPT (arXiv:2410.01131): rates between skip and branch, learnable scales, and matrices of unit vectors.

Shapes: B batch, T tokens, D hidden size, F features of a projection, V vocabulary.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from mixln.errors import PlacementWarning
from mixln.nn.ramp import Stepped
from mixln.placement import Rate


class RateGate(nn.Module, Stepped):
    """The factors of skip and branch, 1 − η and η = |λ·η₀·√D|, with one learnable λ per feature, 1/√D at the start.

    λ is small so that an optimizer's step, of a size that fits the unit matrices, moves it (the authors' code).

    :param size: D.
    """

    def __init__(self, record: Rate, size: int) -> None:
        super().__init__()
        self.initial, self.size = record.initial, size
        self.moved = False
        """True once the matrices have been normalized."""
        self.weight = nn.Parameter(torch.full((size,), size**-0.5))

    def starting_values(self) -> dict[str, float]:
        return {"weight": self.size**-0.5}

    def to_step(self, step: int) -> None:
        self.moved = True

    def forward(self) -> tuple[Tensor, Tensor]:
        """(1 − η, η), each (D,)."""
        if self.training and not self.moved and not torch.compiler.is_compiling():
            self.moved = True  # once
            warnings.warn(
                "training ngpt without unit matrices, because nothing normalizes them; add mixln.StepCallback() to the callbacks of "
                "transformers' Trainer, or call mixln.set_step(model, step) before the first step and after each",
                PlacementWarning,
                stacklevel=2,
            )
        rate = (self.weight * (self.initial * math.sqrt(self.size))).abs()
        return 1 - rate, rate

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, initial={self.initial:g}"


class FeatureScale(nn.Module):
    """c · s^p ⊙ x, with a learnable s per feature, 1 at the start; the parameter is s · start.

    :param size: F.
    :param factor: c, `power`: p.
    """

    def __init__(self, size: int, *, factor: float, power: int = 1, start: float = 1.0) -> None:
        super().__init__()
        self.factor, self.power, self.start = factor, power, start
        self.weight = nn.Parameter(torch.full((size,), start))

    def starting_values(self) -> dict[str, float]:
        return {"weight": self.start}

    def forward(self, x_BTF: Tensor) -> Tensor:
        return x_BTF * (self.factor * (self.weight / self.start) ** self.power)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, factor={self.factor:.6g}, power={self.power}"


class ScaledHead(nn.Linear):
    """s ⊙ (W h) + b, with a learnable s per token, 1 at the start; the parameter is s/√D."""

    logit_scale: nn.Parameter

    @classmethod
    def of(cls, head: nn.Linear) -> ScaledHead:
        """Adds a scale to a head, in place: its weight may stay tied to the embeddings."""
        head.__class__ = cls
        assert isinstance(head, cls)
        scale = head.weight.new_full((head.out_features,), head.in_features**-0.5)
        head.logit_scale = nn.Parameter(scale)
        return head

    def starting_values(self) -> dict[str, float]:
        return {"logit_scale": self.in_features**-0.5}

    def forward(self, input: Tensor) -> Tensor:
        logits = nn.functional.linear(input, self.weight) * (self.logit_scale * math.sqrt(self.in_features))
        return logits if self.bias is None else logits + self.bias


@torch.no_grad()
def to_unit(weight: Tensor, axis: int) -> None:
    """Divides every vector along `axis` by its L2 norm, in place, unless that is 1 to rounding, or the vector is zero.

    Doing it twice changes nothing, so that a resumed training goes on to the bit.
    """
    norm = torch.linalg.vector_norm(weight, dim=axis, keepdim=True, dtype=torch.float32)
    rounding = 8 * torch.finfo(weight.dtype).eps
    changed = ((norm - 1).abs() > rounding) & (norm > 0)
    weight.copy_(torch.where(changed, weight / norm, weight))
