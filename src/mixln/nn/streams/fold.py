"""The end of several residual streams. Shapes: B batch, T tokens, D hidden size, S states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mixln.nn.residual import MakeSlot, PlacedLayer
from mixln.placement import Placement


class Fold(nn.Module):
    """Reduces packed states (B, T, S·D) to the (B, T, D) that the final norm reads if the stack ends there; S = 1 is unchanged.

    :param placement: placement of the whole model.
    :param layers: the model's layers.
    :param norm: builds the module of a norm slot over D features.
    :param size: D.
    """

    def __init__(self, placement: Placement, layers: Sequence[PlacedLayer], norm: MakeSlot, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, states_BTD: Tensor) -> Tensor:
        return states_BTD if states_BTD.shape[-1] == self.size else self.fold(states_BTD)

    def fold(self, states_BTD: Tensor) -> Tensor:
        """The last state, unless a form of stream reads others too."""
        return states_BTD[..., -self.size :]


class References(list[nn.Module]):
    """References to modules that another module owns; a list does not register them a second time.

    In a deep copy of the whole model it refers to the copies, which are made before it.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> References:
        # A copy of the owner of this list alone refers to the original modules.
        return References(memo.get(id(module), module) for module in self)
