"""GPT-2: LayerNorm, learned positions, a fused q, k and v projection; Pre-LN."""

from __future__ import annotations

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.gpt2 import modeling_gpt2 as gpt2
from transformers.models.gpt2.configuration_gpt2 import GPT2Config

from mixln.hosts.family import Host

HOST = Host(
    config=GPT2Config,
    base=gpt2.GPT2Model,
    heads={
        "causal-lm": (gpt2.GPT2LMHeadModel, AutoModelForCausalLM),
        "sequence-classification": (gpt2.GPT2ForSequenceClassification, AutoModelForSequenceClassification),
    },
    layers="h",
    final_norm="ln_f",
    attention="attn",
    # One fused projection for q, k and v.
    projections={"query": "c_attn", "key": "c_attn", "value": "c_attn", "context": "c_proj"},
    down="c_proj",
    roles={
        "wte": "embedding",
        "lm_head": "head",
        "score": "head",
        "attn.c_attn": ("query", "key", "value"),
        "attn.c_proj": "attention_out",
        "mlp.c_fc": "feed_forward_in",
        "mlp.c_proj": "feed_forward_out",
    },
    norm=lambda config, size: nn.LayerNorm(size, eps=config.layer_norm_epsilon),
    eps=lambda config: config.layer_norm_epsilon,
    # transformers divides the output projections of GPT-2 by √(2L).
    stock_init="scaled",
    stock_names={"attention_residual.branch_in": "ln_1", "feed_forward_residual.branch_in": "ln_2"},
)
