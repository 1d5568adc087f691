"""Floating-point operations of training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations per training token; a multiply-add counts as two.

    A forward pass costs 2 per weight that multiplies the token, and 4·T·h in the attention of each layer, for q·k and the sum over v.
    The attention is not halved for the causal mask, as in Chowdhery et al. (arXiv:2204.02311, appendix B). The backward pass costs
    twice the forward pass, so the total is 6·N + 12·L·h·T.

    :param weights: N, the weights that multiply a token: all matrices except look-up tables; of experts, only those that a token visits.
    :param head: the number of those weights that belong to the head.
    :param attention: L·h·T, layers × width of the queries over all heads × tokens per sequence.
    """

    weights: int
    head: int
    attention: int

    @property
    def model(self) -> int:
        """Model FLOPs per token: 6·N + 12·L·h·T."""
        return 6 * self.weights + 12 * self.attention

    def executed(self, activation_checkpointing: bool) -> int:
        """Hardware FLOPs per token. With activation checkpointing the forward pass of the layers runs twice: 8 instead of 6 per weight."""
        recomputed = 2 * (self.weights - self.head) + 4 * self.attention
        return self.model + (recomputed if activation_checkpointing else 0)


def count_flops(model: PreTrainedModel, sequence_length: int) -> Flops:
    """Counts the operations from the shapes of a model, which may be on the meta device.

    :param sequence_length: T, tokens.
    """
    config = model.config
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head: nn.Parameter = head_of(model).weight  # type: ignore[assignment]
    weights = head.numel()
    for parameter in model.parameters():
        if parameter.ndim < 2 or parameter is head or id(parameter) in tables:
            continue
        # The weights of all experts of a layer are one tensor (experts, outputs, inputs).
        visited = config.num_experts_per_tok / parameter.shape[0] if parameter.ndim == 3 else 1
        weights += round(parameter.numel() * visited)
    width = config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads
    attention = config.num_hidden_layers * config.num_attention_heads * width * sequence_length
    return Flops(weights=weights, head=head.numel(), attention=attention)


def parameters(model: PreTrainedModel) -> tuple[int, int]:
    """The number of all parameters, and of those outside the token embeddings and the head. Tied parameters count once."""
    outer = {*model.get_input_embeddings().parameters(), *head_of(model).parameters()}
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, total - sum(parameter.numel() for parameter in outer)


def head_of(model: PreTrainedModel) -> nn.Module:
    """The head of a causal language model."""
    head = model.get_output_embeddings()
    assert head is not None
    return head
