"""Gradient norms by layer and first-order estimates of removing branches, from one backward pass.

Shapes: B batch, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixln.diagnostics.measures import Measure
from mixln.diagnostics.results import Gradients
from mixln.diagnostics.stack import Batch, Stack, evaluating, first_of, hooks
from mixln.errors import DataError
from mixln.runs.profile import Profile


def gradients(stack: Stack, batches: Sequence[Batch], measure: Measure) -> Gradients:
    """The gradient of the mean loss over all batches: its norm in every sublayer, and its derivative with respect to branch gates.

    With y = x + g·f(x) and g = 1, ∂loss/∂g = Σ over tokens of ⟨∂loss/∂y, f(x)⟩; to first order, removing the branch adds
    −∂loss/∂g to the loss. Runs in evaluation mode; weights, `.grad` and `requires_grad` of the model are unchanged.

    :param measure: a loss, see :mod:`mixln.diagnostics.measures`.
    :raises DataError: if no token is predicted.
    """
    if stack.branches is None:
        raise ValueError("gradients by sublayer need a stack whose branches are known")
    total = float(sum(measure.weights(batch).sum() for batch in batches))
    if not total > 0:
        raise DataError(
            f"the gradient of the {measure.name} needs at least one predicted token, got none; give more text"
        )
    # Weights by layer and sublayer; a weight that is shared between layers counts in each.
    groups = [
        [_weights(layer, names.weights) for names in pair]
        for layer, pair in zip(stack.layers, stack.branches, strict=True)
    ]
    parameters = list(dict.fromkeys(p for pair in groups for group in pair for p in group))
    sums: dict[nn.Parameter, Tensor] = {}
    loss = 0.0
    with evaluating(stack.model), torch.enable_grad(), _trainable(parameters), _gate_derivatives(stack) as gate:
        for batch in batches:
            mean = measure.run(stack, batch).sum() / total
            loss += mean.item()
            # autograd.grad, unlike backward(), leaves .grad unchanged. It returns None for weights that this batch does not use.
            grads = torch.autograd.grad(mean, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, grads, strict=True):
                if gradient is not None:
                    sums[parameter] = sums[parameter] + gradient.float() if parameter in sums else gradient.float()

    def norm(side: int) -> tuple[float, ...]:
        return tuple(float(nn.utils.get_total_norm([sums[p] for p in pair[side] if p in sums])) for pair in groups)

    return Gradients(
        norm=Profile(attention=norm(0), feed_forward=norm(1)),
        gate=Profile(attention=tuple(gate[:, 0].tolist()), feed_forward=tuple(gate[:, 1].tolist())),
        loss=loss,
        tokens=int(total),
    )


@contextmanager
def _trainable(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Makes frozen parameters require gradients, and freezes them again on exit."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def _gate_derivatives(stack: Stack) -> Iterator[Tensor]:
    """Sums ∂loss/∂g of every branch over the backward passes inside the `with` block: (L, 2) for attention and feed-forward."""
    gate = torch.zeros(len(stack), 2, dtype=torch.float64)

    def watch(index: int, side: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            branch_BTD = first_of(output)

            def add_derivative(gradient_BTD: Tensor) -> None:
                gate[index, side] += (gradient_BTD.float() * branch_BTD.detach().float()).sum().item()

            branch_BTD.register_hook(add_derivative)

        return hook

    with hooks() as add:
        for index, (layer, pair) in enumerate(zip(stack.layers, stack.branches or (), strict=True)):
            for side, names in enumerate(pair):
                add(layer.get_submodule(names.output).register_forward_hook(watch(index, side)))
        yield gate


def _weights(layer: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    return list(dict.fromkeys(p for name in names for p in layer.get_submodule(name).parameters()))
