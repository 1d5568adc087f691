"""Measures how often each layer's router chooses each expert, and with what weight.

Shapes: B batch, T tokens, N real tokens, K experts per token, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mixln.diagnostics.results import Experts
from mixln.diagnostics.stack import Batch, Stack, evaluating, hooks, real_tokens

ROUTERS = ("gate", "router")
"""Names of the router within a layer's experts, in all families of transformers 5."""


@dataclass(eq=False)
class Tally:
    """The choices of one router so far.

    :param chosen: how often each expert was chosen (E,); `weight`: the sum of its weights (E,).
    :param per_token: experts chosen for each token.
    """

    chosen: Tensor
    weight: Tensor
    per_token: int


@torch.no_grad()
def expert_use(stack: Stack, batches: Iterable[Batch]) -> Experts | None:
    """The share of the tokens for which each expert was chosen, and its mean weight when it was; padding is left out.

    Shared experts, which every token passes, have no router and are not counted.

    :returns: `None` if no layer has a router that returns the chosen experts: layers without experts, or Llama 4 and DBRX, whose
        routers return a score for every expert.
    """
    tallies: dict[int, Tally] = {}
    mask_BT = torch.zeros(0)

    def counting(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if (choice := _choice(output)) is None:
                return
            indices_NK, weights_NK, experts = choice
            keep = mask_BT.reshape(-1).cpu()
            if len(indices_NK) != len(keep):
                return
            indices_NK, weights_NK = indices_NK.cpu()[keep], weights_NK.cpu()[keep].double()
            zeros = torch.zeros(experts, dtype=torch.float64)
            tally = tallies.setdefault(index, Tally(zeros, zeros.clone(), indices_NK.shape[-1]))
            tally.chosen += torch.bincount(indices_NK.flatten(), minlength=experts)
            tally.weight.index_add_(0, indices_NK.flatten(), weights_NK.flatten())

        return hook

    tokens = 0
    with evaluating(stack.model), hooks() as add:
        routers = [(index, router) for index, layer in enumerate(stack.layers) for router in _routers(layer)]
        if not routers:
            return None
        for index, router in routers:
            add(router.register_forward_hook(counting(index)))
        for batch in batches:
            ids = next(iter(batch.values()))
            mask_BT = real_tokens(batch, ids if ids.dim() > 1 else ids.unsqueeze(1))
            tokens += int(mask_BT.sum())
            stack.run(batch)
            if not tallies:
                return None
    return _of(tallies, tokens) if tallies else None


def _routers(layer: nn.Module) -> list[nn.Module]:
    """The modules named like a router that are not a plain matrix, as the gate of a feed-forward is."""
    return [
        module
        for name, module in layer.named_modules()
        if name.rpartition(".")[2] in ROUTERS and type(module) is not nn.Linear
    ]


def _choice(output: Any) -> tuple[Tensor, Tensor, int] | None:
    """The chosen experts (N, K), their weights (N, K), and E, in a router's output (…, scores (N, E) or (N, K), indices (N, K), …)."""
    if not isinstance(output, tuple) or not isinstance(output[0], Tensor):
        return None
    for before, entry in pairwise(output):
        if isinstance(entry, Tensor) and entry.dtype == torch.int64 and entry.dim() == 2 and isinstance(before, Tensor):
            weights = before if before.shape == entry.shape else before.gather(-1, entry)
            return entry, weights, output[0].shape[-1]
    return None


def _of(tallies: dict[int, Tally], tokens: int) -> Experts:
    ordered = sorted(tallies.items())
    return Experts(
        layers=tuple(index + 1 for index, _ in ordered),
        chosen=tuple(tuple((tally.chosen / tokens).tolist()) for _, tally in ordered),
        weight=tuple(
            tuple(
                weight / chosen if chosen else None
                for weight, chosen in zip(tally.weight.tolist(), tally.chosen.tolist(), strict=True)
            )
            for _, tally in ordered
        ),
        per_token=ordered[0][1].per_token,
        tokens=tokens,
    )
