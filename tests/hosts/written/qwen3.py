"""Qwen3: Pre-LN with per-head norms on q and k."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.qwen3 import modeling_qwen3 as qwen3
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

from mixln.hosts.family import Host
from mixln.placement.entry import QK_PRE
from tests.hosts.written.names import OWN_QK_NORMS, PRE_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=Qwen3Config,
    base=qwen3.Qwen3Model,
    heads={
        "causal-lm": (qwen3.Qwen3ForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (qwen3.Qwen3ForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    own_norms=OWN_QK_NORMS,
    roles=ROLES,
    norm=lambda config, size: qwen3.Qwen3RMSNorm(size, eps=config.rms_norm_eps),
    stock=QK_PRE,
    stock_names=PRE_NORMS,
    body="llama",
)
