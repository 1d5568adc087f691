"""How many floating-point operations a training takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations for one token of training, a multiplication and an addition counted as two.

    A forward pass costs 2 for each weight that multiplies the token, and 4·T·h in the attention of each layer (q·k and the
    sum over v; not halved for the causal mask, as Chowdhery et al. count, arXiv:2204.02311, appendix B). The backward pass
    costs twice the forward pass: 6·N + 12·L·h·T in all.

    :param weights: N, the weights that multiply a token: all matrices but look-up tables, and of the experts those that a token visits.
    :param head: those of N that are the head's.
    :param attention: L·h·T, layers × width of the queries over all heads × tokens of the sequence.
    """

    weights: int
    head: int
    attention: int

    @property
    def model(self) -> int:
        """What the training asks for: 6·N + 12·L·h·T."""
        return 6 * self.weights + 12 * self.attention

    def executed(self, activation_checkpointing: bool) -> int:
        """What the devices compute: with checkpointing the layers' forward pass runs twice, 8 in place of 6."""
        again = 2 * (self.weights - self.head) + 4 * self.attention
        return self.model + (again if activation_checkpointing else 0)


def count_flops(model: PreTrainedModel, sequence_length: int) -> Flops:
    """Counts from the shapes of a model, which may be on the meta device.

    :param sequence_length: T, tokens.
    """
    config = model.config
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head: nn.Parameter = head_of(model).weight  # type: ignore[assignment]
    weights = head.numel()
    for parameter in model.parameters():
        if parameter.ndim < 2 or parameter is head or id(parameter) in tables:
            continue
        # The weights of all experts of a layer are one tensor, experts first.
        visited = config.num_experts_per_tok / parameter.shape[0] if parameter.ndim == 3 else 1
        weights += round(parameter.numel() * visited)
    width = config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads
    attention = config.num_hidden_layers * config.num_attention_heads * width * sequence_length
    return Flops(weights=weights, head=head.numel(), attention=attention)


def parameters(model: PreTrainedModel) -> tuple[int, int]:
    """All parameters, and those without token embeddings and head; tied ones count once."""
    outside = {*model.get_input_embeddings().parameters(), *head_of(model).parameters()}
    everything = sum(parameter.numel() for parameter in model.parameters())
    return everything, everything - sum(parameter.numel() for parameter in outside)


def head_of(model: PreTrainedModel) -> nn.Module:
    """The head of a causal language model."""
    head = model.get_output_embeddings()
    assert head is not None
    return head
