"""The loss of a causal language model without its logits, or rather with those of a few tokens at a time.

Shapes: B batch, T tokens, N of both, R of them at a time, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

ROWS = 512
"""Tokens whose logits are made at a time. Fewer make the matrix products slower; more are no faster (benchmarks/loss.py)."""


@contextmanager
def without_logits(model: nn.Module) -> Iterator[bool]:
    """Within it, a causal language model that is given labels holds the logits of some rows at a time, instead of all B × T × V.

    Its `loss` and gradients are those that it has otherwise, to the rounding of float32; its `logits` are the last hidden
    states (B, T, D). The model's own code runs: the head hands on what it is given, and the loss multiplies by its weights.
    Where something else comes between head and loss, or the head is not the model's own linear map, all is as usual.

    :param model: also one that PEFT has wrapped.
    :returns: whether it does without logits.
    """
    inner: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    head = inner.get_output_embeddings()
    changed = getattr(inner.config, "final_logit_softcapping", None) is not None
    if type(head) is not nn.Linear or head.bias is not None or changed:
        yield False
        return
    given: list[Tensor] = []

    def forward(states: Tensor) -> Tensor:
        given.append(states)
        return states

    def loss_function(logits: Tensor, labels: Tensor, *_: Any, **kwargs: Any) -> Tensor:
        assert logits is given.pop(), f"{type(inner).__name__} changes its logits before the loss"
        return causal_loss(logits, head, labels, **kwargs)

    before = [(owner, name, vars(owner).get(name)) for owner, name in ((head, "forward"), (inner, "_loss_function"))]
    head.forward, inner.loss_function = forward, loss_function  # type: ignore[method-assign]
    try:
        yield True
    finally:
        for owner, name, value in before:
            delattr(owner, name)
            if value is not None:
                setattr(owner, name, value)


def causal_loss(
    states_BTD: Tensor,
    head: nn.Linear,
    labels_BT: Tensor,
    *,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Cross-entropy of the next token, nats: the mean over labels, or their sum divided by `num_items_in_batch`.

    The same arguments as :func:`transformers.loss.loss_utils.ForCausalLMLoss`, but for the states that the head is given.
    """
    if shift_labels is None:
        shift_labels = F.pad(labels_BT, (0, 1), value=ignore_index)[:, 1:]
    targets_N = shift_labels.flatten().to(states_BTD.device)
    if num_items_in_batch is None:
        num_items_in_batch = (targets_N != ignore_index).sum()
    summed = _SummedLoss.apply(states_BTD.flatten(0, 1), head.weight, targets_N, ignore_index, torch.is_grad_enabled())
    return summed / num_items_in_batch  # type: ignore[no-any-return]


class _SummedLoss(torch.autograd.Function):
    """Σ −log softmax(W x)[target], and its gradients at once, while the logits of some rows are there.

    :func:`torch.nn.functional.linear_cross_entropy` does the same, but gives the loss of bfloat16 states in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, ignored: int, learning: bool
    ) -> Tensor:
        kind = states_ND.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states_ND.dtype
        total = torch.zeros((), device=states_ND.device)
        d_states_ND, d_weight_VD = (
            torch.zeros_like(given) if learning and needed else None
            for given, needed in zip((states_ND, weight_VD), ctx.needs_input_grad, strict=False)
        )
        weight = weight_VD.to(low)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(states_ND), ROWS):
                part = slice(start, start + ROWS)
                used_R1 = (targets_N[part] != ignored).unsqueeze(1)
                targets_R1 = targets_N[part].unsqueeze(1).where(used_R1, 0)
                states_RD = states_ND[part].to(low).where(used_R1, 0)
                logs_RV = F.log_softmax((states_RD @ weight.T).float(), dim=-1)
                total -= (logs_RV.gather(1, targets_R1) * used_R1).sum()
                if d_states_ND is not None or d_weight_VD is not None:
                    logs_RV.exp_().scatter_add_(1, targets_R1, torch.full_like(targets_R1, -1.0, dtype=torch.float32))
                    d_logits_RV = logs_RV.to(low)
                    if d_states_ND is not None:
                        d_states_ND[part] = (d_logits_RV @ weight) * used_R1
                    if d_weight_VD is not None:
                        d_weight_VD += d_logits_RV.T @ states_RD
                    del d_logits_RV
                del logs_RV  # before the next are made
        ctx.save_for_backward(d_states_ND, d_weight_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        d_states_ND, d_weight_VD = (None if given is None else given * outer[0] for given in ctx.saved_tensors)
        return d_states_ND, d_weight_VD, None, None, None
