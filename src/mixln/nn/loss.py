"""Cross-entropy of a causal language model computed in chunks of tokens, without the full logits.

Shapes: B batch, T tokens, N = B·T, R tokens of one chunk, D hidden size, V vocabulary.
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
"""Tokens per chunk of logits. Fewer make the matrix products slower; more are no faster (benchmarks/loss.py)."""


@contextmanager
def without_logits(model: nn.Module) -> Iterator[bool]:
    """Context in which a causal language model with labels holds the logits of :data:`ROWS` tokens at a time, not of all B × T.

    `loss` and gradients are unchanged up to float32 rounding; `logits` are the last hidden states (B, T, D). The model's own code
    runs: the head returns its input, and the loss multiplies it by the head's weights. A model that changes its logits between
    head and loss, or whose head is not its own linear layer, runs unchanged.

    :param model: a model, or one wrapped by PEFT.
    :returns: whether the logits are avoided.
    """
    inner: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    head = inner.get_output_embeddings()
    # Adapters and quantizers replace the head by another class, and softcapping needs the logits themselves.
    changed = getattr(inner.config, "final_logit_softcapping", None) is not None
    if type(head) is not nn.Linear or head.bias is not None or changed:
        yield False
        return
    head_inputs: list[Tensor] = []

    def forward(states: Tensor) -> Tensor:
        head_inputs.append(states)
        return states

    def loss_function(logits: Tensor, labels: Tensor, *_: Any, **kwargs: Any) -> Tensor:
        assert logits is head_inputs.pop(), f"{type(inner).__name__} changes its logits before the loss"
        return causal_loss(logits, head, labels, **kwargs)

    # Values set on the instances, None if there are none. transformers' `loss_function` property stores its value in `_loss_function`.
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
    """Next-token cross-entropy in nats: the mean over labels, or their sum divided by `num_items_in_batch`.

    Takes the arguments of :func:`transformers.loss.loss_utils.ForCausalLMLoss`, with the head's input in place of logits.
    """
    # Position t predicts token t + 1, so the last position has no label.
    if shift_labels is None:
        shift_labels = F.pad(labels_BT, (0, 1), value=ignore_index)[:, 1:]
    targets_N = shift_labels.flatten().to(states_BTD.device)
    if num_items_in_batch is None:
        num_items_in_batch = (targets_N != ignore_index).sum()
    summed = _SummedLoss.apply(states_BTD.flatten(0, 1), head.weight, targets_N, ignore_index, torch.is_grad_enabled())
    return summed / num_items_in_batch  # type: ignore[no-any-return]


class _SummedLoss(torch.autograd.Function):
    """Σ −log softmax(W x)[target], with the gradients computed in the forward pass while a chunk's logits exist.

    :func:`torch.nn.functional.linear_cross_entropy` does the same, but returns the loss of bfloat16 states in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, ignored: int, learning: bool
    ) -> Tensor:
        kind = states_ND.device.type
        # Matrix products run in the dtype that the head would use, softmax and sums in float32.
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states_ND.dtype
        total = torch.zeros((), device=states_ND.device)
        d_states_ND, d_weight_VD = (
            torch.zeros_like(tensor) if learning and needed else None
            for tensor, needed in zip((states_ND, weight_VD), ctx.needs_input_grad, strict=False)
        )
        weight = weight_VD.to(low)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(states_ND), ROWS):
                part = slice(start, start + ROWS)
                # Ignored tokens get index 0, which gather accepts, and zero states: finite logits and no weight gradient.
                used_R1 = (targets_N[part] != ignored).unsqueeze(1)
                targets_R1 = targets_N[part].unsqueeze(1).where(used_R1, 0)
                states_RD = states_ND[part].to(low).where(used_R1, 0)
                logs_RV = F.log_softmax((states_RD @ weight.T).float(), dim=-1)
                total -= (logs_RV.gather(1, targets_R1) * used_R1).sum()
                if d_states_ND is not None or d_weight_VD is not None:
                    # d loss / d logits = softmax − one-hot(target), in the memory of the log-probabilities.
                    logs_RV.exp_().scatter_add_(1, targets_R1, torch.full_like(targets_R1, -1.0, dtype=torch.float32))
                    d_logits_RV = logs_RV.to(low)
                    if d_states_ND is not None:
                        d_states_ND[part] = (d_logits_RV @ weight) * used_R1
                    if d_weight_VD is not None:
                        d_weight_VD += d_logits_RV.T @ states_RD
                    del d_logits_RV
                del logs_RV  # before the next chunk is allocated
        ctx.save_for_backward(d_states_ND, d_weight_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        # outer[0] is the gradient of the scalar loss, for example 1 / num_items_in_batch.
        d_states_ND, d_weight_VD = (None if saved is None else saved * outer[0] for saved in ctx.saved_tensors)
        return d_states_ND, d_weight_VD, None, None, None
