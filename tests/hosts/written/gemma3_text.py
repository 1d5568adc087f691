"""Gemma 3 (text): Sandwich-LN with per-head norms on q and k; norms multiply by 1 + weight, embeddings by √d."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.gemma3 import modeling_gemma3 as gemma3
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig

from mixln.hosts.family import Host
from mixln.placement.entry import QK_SANDWICH
from tests.hosts.written.names import OWN_QK_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=Gemma3TextConfig,
    base=gemma3.Gemma3TextModel,
    heads={
        "causal-lm": (gemma3.Gemma3ForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (gemma3.Gemma3TextForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    own_norms=OWN_QK_NORMS,
    roles=ROLES,
    norm=lambda config, size: gemma3.Gemma3RMSNorm(size, eps=config.rms_norm_eps),
    stock=QK_SANDWICH,
    stock_names={
        "attention_residual.branch_in": "input_layernorm",
        "attention_residual.branch_out": "post_attention_layernorm",
        "feed_forward_residual.branch_in": "pre_feedforward_layernorm",
        "feed_forward_residual.branch_out": "post_feedforward_layernorm",
    },
)
