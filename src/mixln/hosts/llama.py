"""Llama: RMSNorm, rotary embedding, SwiGLU; its stock placement is Pre-LN."""

from __future__ import annotations

from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.llama import modeling_llama as llama
from transformers.models.llama.configuration_llama import LlamaConfig

from mixln.hosts.factory import placed_classes
from mixln.hosts.family import Host

LLAMA = Host(
    config=LlamaConfig,
    base=llama.LlamaModel,
    auto_base=AutoModel,
    heads={"causal-lm": (llama.LlamaForCausalLM, AutoModelForCausalLM)},
    layers="layers",
    attention="self_attn",
    feed_forward="mlp",
    projections={"query": "q_proj", "key": "k_proj", "value": "v_proj", "context": "o_proj"},
    roles={
        "embed_tokens": "embedding",
        "lm_head": "head",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "o_proj": "attention_out",
        "gate_proj": "feed_forward_in",
        "up_proj": "feed_forward_in",
        "down_proj": "feed_forward_out",
    },
    norm=lambda config, size: llama.LlamaRMSNorm(size, eps=config.rms_norm_eps),
    eps=lambda config: config.rms_norm_eps,
    stock={
        "attention_residual.branch_in": "input_layernorm",
        "feed_forward_residual.branch_in": "post_attention_layernorm",
    },
)

globals().update(placed_classes(LLAMA, __name__))
