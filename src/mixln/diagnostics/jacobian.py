"""The Jacobian of each layer at sampled tokens. Shapes: B sequences, T tokens, D hidden size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixln.diagnostics.angular import last_only
from mixln.diagnostics.results import Jacobian
from mixln.diagnostics.stack import Batch, Recording, Stack, evaluating, real_tokens, recording

Map = Callable[[Tensor], Tensor]


def jacobian(stack: Stack, batch: Batch, *, iterations: int = 20, tolerance: float = 1e-3, seed: int = 0) -> Jacobian:
    """How far each layer is from an identity map, at the last token of each sequence.

    J = ∂y_t/∂x_t (D × D) holds the rest of the sequence fixed. Its largest singular value, and that of J − I, come from power
    iteration on JᵀJ with products J v and Jᵀ u, never from J itself. The Mix-LN paper explains the idle deep layers of Pre-LN
    by J → I (arXiv:2412.13795, section 2.1); this measures it.

    :param batch: one batch; each of its sequences gives one token.
    :param iterations: most steps of a power iteration, whose values are lower bounds that grow towards the singular values.
    :param tolerance: it ends earlier where the value of every token changes by less than this share of itself.
    """
    generator = torch.Generator().manual_seed(seed)
    largest, distance, typical = [], [], []
    with evaluating(stack.model), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        with torch.no_grad(), recording(stack, batch) as record:
            stack.run(batch)
        keep_BT = last_only(real_tokens(batch, record.states[0]))
        for index in range(len(stack)):
            apply, transposed = _products(record, index, keep_BT)
            shape = record.states[index][keep_BT].shape
            starts = torch.randn(2, *shape, generator=generator).to(keep_BT.device)
            largest.append(_singular(apply, transposed, starts[0], iterations, tolerance))
            distance.append(
                _singular(_less_identity(apply), _less_identity(transposed), starts[0], iterations, tolerance)
            )
            v_BD = starts[1] / starts[1].norm(dim=-1, keepdim=True)
            typical.append(_less_identity(apply)(v_BD).square().sum(dim=-1).mean().sqrt().item())
    return Jacobian(largest=tuple(largest), distance=tuple(distance), typical=tuple(typical), tokens=int(keep_BT.sum()))


def _products(record: Recording, index: int, keep_BT: Tensor) -> tuple[Map, Map]:
    """v → J v and u → Jᵀ u of one layer, both (B, D): one forward pass, then only backward passes."""
    x_BTD = record.entered(index)
    with torch.enable_grad(), record.stack.past_entry():
        token_BD = x_BTD[keep_BT].float().requires_grad_(True)
        changed_BTD = x_BTD.float().masked_scatter(keep_BT.unsqueeze(-1), token_BD).to(x_BTD.dtype)
        y_BD = record.advance(index, changed_BTD)[keep_BT].float()
        probe_BD = torch.zeros_like(y_BD, requires_grad=True)
        # Jᵀ · probe, which is linear in the probe: its own derivative by it is J.
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
