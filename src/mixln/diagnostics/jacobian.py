"""The Jacobian of each layer at sampled tokens. Shapes: B sequences, T tokens, D hidden size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixln.diagnostics.angular import last_only
from mixln.diagnostics.results import Jacobian
from mixln.diagnostics.stack import Batch, Recording, Stack, evaluating, real_tokens, recording
from mixln.errors import SettingsError

Map = Callable[[Tensor], Tensor]


def jacobian(stack: Stack, batch: Batch, *, iterations: int = 20, tolerance: float = 1e-3, seed: int = 0) -> Jacobian:
    """The distance of each layer from an identity map, at the last token of each sequence.

    J = ∂y_t/∂x_t (D × D, or S·D × S·D of S streams), with the other tokens of the sequence, and of a value residual the first layer's
    values, fixed. The largest singular values of J and J − I are computed by power iteration on JᵀJ with the products J v and Jᵀ u; J
    itself is never formed. The Mix-LN paper explains the ineffective deep layers of Pre-LN by J → I (arXiv:2412.13795, section 2.1).

    :param batch: one batch, of which one token per sequence is used.
    :param iterations: maximum number of power iterations. Every iterate is a lower bound that increases towards the singular value.
    :param tolerance: stops earlier once the relative change of every token's value is at most this.
    :param seed: seed of the random start vectors and directions.
    :raises SettingsError: if a layer's output has more states than its input.
    """
    check_square(stack)
    generator = torch.Generator().manual_seed(seed)
    largest, distance, typical = [], [], []
    with evaluating(stack.model), sdpa_kernel(SDPBackend.MATH):  # fused attention kernels have no second derivative
        with torch.no_grad(), recording(stack, batch) as record:
            stack.run(batch)
        keep_BT = last_only(real_tokens(batch, record.states[0]))
        for index in range(len(stack)):
            apply, transposed = _products(record, index, keep_BT)
            shape = record.entered(index)[keep_BT].shape
            starts = torch.randn(2, *shape, generator=generator).to(keep_BT.device)
            largest.append(_singular(apply, transposed, starts[0], iterations, tolerance))
            distance.append(
                _singular(_less_identity(apply), _less_identity(transposed), starts[0], iterations, tolerance)
            )
            v_BD = starts[1] / starts[1].norm(dim=-1, keepdim=True)
            # E‖(J − I)v‖² over random unit vectors v is ‖J − I‖_F² / D.
            typical.append(_less_identity(apply)(v_BD).square().sum(dim=-1).mean().sqrt().item())
    return Jacobian(largest=tuple(largest), distance=tuple(distance), typical=tuple(typical), tokens=int(keep_BT.sum()))


def check_square(stack: Stack) -> None:
    """:raises SettingsError: if the output of a layer has more states than its input, so that its Jacobian is not square."""
    if stack.grows:
        raise SettingsError(
            f"jacobian-tokens must be 0 for this model ({type(stack.layers[0]).__name__}): a layer passes on the outputs of earlier ones "
            "beside its own, so its Jacobian is not square and has no distance from an identity map; omit them"
        )


def _products(record: Recording, index: int, keep_BT: Tensor) -> tuple[Map, Map]:
    """The maps v → J v and u → Jᵀ u of one layer, on (B, D): one forward pass, then backward passes only."""
    x_BTD = record.entered(index)
    values, _ = record.stack.split(record.states[index])
    with torch.enable_grad(), record.stack.past_entry():
        token_BD = x_BTD[keep_BT].float().requires_grad_(True)
        changed_BTD = x_BTD.float().masked_scatter(keep_BT.unsqueeze(-1), token_BD).to(x_BTD.dtype)
        packed = changed_BTD if values is None else torch.cat((values, changed_BTD), dim=-1)
        y_BD = record.stack.split(record.advance(index, packed))[1][keep_BT].float()
        probe_BD = torch.zeros_like(y_BD, requires_grad=True)
        # Double backward: Jᵀ·probe is linear in the probe, so its vector-Jacobian product with v is J v.
        (pulled_BD,) = torch.autograd.grad(y_BD, token_BD, probe_BD, create_graph=True)

    def apply(v_BD: Tensor) -> Tensor:
        return torch.autograd.grad(pulled_BD, probe_BD, v_BD, retain_graph=True)[0].detach()

    def transposed(u_BD: Tensor) -> Tensor:
        return torch.autograd.grad(y_BD, token_BD, u_BD, retain_graph=True)[0].detach()

    return apply, transposed


def _less_identity(apply: Map) -> Map:
    return lambda v_BD: apply(v_BD) - v_BD


def _singular(apply: Map, transposed: Map, v_BD: Tensor, iterations: int, tolerance: float) -> float:
    """The largest singular value of each token's map, mean over tokens."""
    value_B = torch.zeros(len(v_BD), device=v_BD.device)
    for _ in range(iterations):
        v_BD = v_BD / v_BD.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v_BD.dtype).tiny)
        u_BD = apply(v_BD)
        before_B, value_B = value_B, u_BD.norm(dim=-1)
        if ((value_B - before_B).abs() <= tolerance * value_B).all():
            break
        v_BD = transposed(u_BD)
    return value_B.mean().item()
