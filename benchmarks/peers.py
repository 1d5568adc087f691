"""The same language model by others: stock transformers, plain PyTorch in the manner of nanoGPT, and x-transformers.

Each is a module that takes tokens (B, T) and returns the mean cross-entropy of the next token, float32, as an untied model with
RMSNorm, rotary positions and SwiGLU of the shape that a `LlamaConfig` says.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel


class Stock(nn.Module):
    """transformers' own."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.model: PreTrainedModel = LlamaForCausalLM(config)  # type: ignore[assignment]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, labels=tokens, use_cache=False).loss


class Plain(nn.Module):
    """As one writes it by hand. Its weights have the names of transformers', so that it can be shown to compute the same."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab_size, size),
                "layers": nn.ModuleList(PlainLayer(config) for _ in range(config.num_hidden_layers)),
                "norm": nn.RMSNorm(size, eps=config.rms_norm_eps),
            }
        )
        self.lm_head = nn.Linear(size, config.vocab_size, bias=False)
        head = size // config.num_attention_heads
        frequencies = 10_000 ** (-torch.arange(0, head, 2) / head)
        angles = torch.outer(torch.arange(config.max_position_embeddings), frequencies).repeat(1, 2)
        self.register_buffer("rotary", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        self.apply(normal)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.model["embed_tokens"](tokens)
        rotary = self.rotary[:, : tokens.shape[1]]
        for layer in self.model["layers"]:
            x = layer(x, rotary)
        return next_token_loss(self.lm_head(self.model["norm"](x)), tokens)


class PlainLayer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, self.heads = config.hidden_size, config.num_attention_heads
        self.input_layernorm = nn.RMSNorm(size, eps=config.rms_norm_eps)
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(size, size, bias=False) for name in "qkvo"})
        self.post_attention_layernorm = nn.RMSNorm(size, eps=config.rms_norm_eps)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(size, config.intermediate_size, bias=False),
                "up_proj": nn.Linear(size, config.intermediate_size, bias=False),
                "down_proj": nn.Linear(config.intermediate_size, size, bias=False),
            }
        )

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        h = self.input_layernorm(x)
        q, k, v = (self.self_attn[f"{name}_proj"](h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
        h = F.scaled_dot_product_attention(rotated(q, rotary), rotated(k, rotary), v, is_causal=True)
        x = x + self.self_attn["o_proj"](h.transpose(1, 2).flatten(2))
        h = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h))


class XTransformers(nn.Module):
    """x-transformers' decoder of the same shape, with its fastest attention."""

    def __init__(self, config: LlamaConfig) -> None:
        from x_transformers import Decoder, TransformerWrapper

        super().__init__()
        self.model = TransformerWrapper(
            num_tokens=config.vocab_size,
            max_seq_len=config.max_position_embeddings,
            use_abs_pos_emb=False,
            attn_layers=Decoder(
                dim=config.hidden_size,
                depth=config.num_hidden_layers,
                heads=config.num_attention_heads,
                attn_dim_head=config.hidden_size // config.num_attention_heads,
                attn_flash=True,
                use_rmsnorm=True,
                rotary_pos_emb=True,
                rotary_emb_dim=config.hidden_size // config.num_attention_heads,
                ff_swish=True,
                ff_glu=True,
                ff_no_bias=True,
                ff_mult=config.intermediate_size / config.hidden_size,
            ),
        )
        for module in self.modules():  # ff_no_bias spares that of its gated projection
            if isinstance(module, nn.Linear):
                module.bias = None
        self.apply(normal)

    def forward(self, tokens: Tensor) -> Tensor:
        return next_token_loss(self.model(tokens), tokens)


def normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def rotated(x: Tensor, rotary: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * rotary[0] + torch.cat([-second, first], dim=-1) * rotary[1]


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
