"""Llama: RMSNorm, rotary embedding, SwiGLU; Pre-LN."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.llama import modeling_llama as llama
from transformers.models.llama.configuration_llama import LlamaConfig

from mixln.hosts.family import Host
from tests.hosts.written.names import PRE_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=LlamaConfig,
    base=llama.LlamaModel,
    heads={
        "causal-lm": (llama.LlamaForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (llama.LlamaForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    roles=ROLES,
    norm=lambda config, size: llama.LlamaRMSNorm(size, eps=config.rms_norm_eps),
    stock_names=PRE_NORMS,
    body="llama",
)
