"""The size that a pruned model may have. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mixln.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

    from mixln.diagnostics.selection import Enough
    from mixln.diagnostics.stack import Stack

POWERS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
"""Suffix → factor: b is a billion parameters, g a billion bytes."""
FORMS = "a share of the model's parameters (75%), a number of parameters (100M, 1.5B) or the memory of its weights (400MB, 2GB)"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper bound for the size of a model.

    :param amount: number of parameters, bytes of all weights, or share of the parameters of the whole model.
    :param text: as the user wrote it.
    """

    amount: float
    kind: Literal["parameters", "bytes", "share"]
    text: str


def budget_of(text: str) -> Budget:
    """Parses `75%`, `100M`, `400MB` and the like; upper and lower case are the same.

    :raises SettingsError: if the text has another form, or is not above 0.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*(%|[kmgt]b|[kmbt]?)", text.strip().lower())
    if match is None or float(match[1]) == 0 or (match[2] == "%" and float(match[1]) >= 100):
        raise SettingsError(f"budget must be {FORMS}, above 0 and below 100%, got {text!r}")
    number, suffix = float(match[1]), match[2]
    if suffix == "%":
        return Budget(amount=number / 100, kind="share", text=text)
    if len(suffix) == 2:
        return Budget(amount=number * POWERS[suffix[0]], kind="bytes", text=text)
    return Budget(amount=number * POWERS[suffix], kind="parameters", text=text)


def within(budget: Budget, stack: Stack) -> Enough:
    """Enough layers are removed if the rest of the model is within the budget.

    :raises SettingsError: if the whole model is within it, or the model with a single layer is not.
    """
    from mixln.diagnostics.selection import parts_of, saved

    memory = budget.kind == "bytes"

    def size(weights: Iterable[nn.Parameter]) -> int:
        return sum(weight.numel() * (weight.element_size() if memory else 1) for weight in weights)

    parts = parts_of(stack, "layers")
    # The layers share no weight, or prune would refuse to remove any.
    sizes = {part: size(saved(stack, [part])) for part in parts}
    whole = size(stack.model.parameters())
    most = budget.amount * whole if budget.kind == "share" else budget.amount
    least = whole - sum(sizes.values()) + min(sizes.values())
    if whole <= most:
        raise SettingsError(f"budget {budget.text} leaves nothing to remove: the model has {said(whole, memory)}")
    if least > most:
        raise SettingsError(
            f"budget {budget.text} is below the smallest model that removing layers can reach, one layer and what is not in "
            f"layers, such as the embeddings: {said(least, memory)} of {said(whole, memory)}; give at least that"
        )
    return lambda removed: whole - sum(sizes[part] for part in removed) <= most


def said(size: float, memory: bool) -> str:
    """A size with its unit: `134,515,008 parameters`, `538.1 MB`."""
    return f"{size / 1e6:,.1f} MB" if memory else f"{size:,.0f} parameters"
