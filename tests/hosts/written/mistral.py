"""Mistral: Llama with a sliding window; Pre-LN."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.mistral.configuration_mistral import MistralConfig

from mixln.hosts.family import Host
from tests.hosts.written.names import PRE_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=MistralConfig,
    base=mistral.MistralModel,
    heads={
        "causal-lm": (mistral.MistralForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (mistral.MistralForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    roles=ROLES,
    norm=lambda config, size: mistral.MistralRMSNorm(size, eps=config.rms_norm_eps),
    stock_names=PRE_NORMS,
    # No `body`: the sliding window distinguishes it from Llama, not only its norms.
)
