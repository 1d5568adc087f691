"""Qwen3 with a mixture of experts: Pre-LN with per-head norms on q and k."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen3_moe
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig

from mixln.hosts.family import Host
from mixln.placement.entry import QK_PRE
from tests.hosts.written.names import EXPERT_ROLES, OWN_QK_NORMS, PRE_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=Qwen3MoeConfig,
    base=qwen3_moe.Qwen3MoeModel,
    heads={
        "causal-lm": (qwen3_moe.Qwen3MoeForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (qwen3_moe.Qwen3MoeForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    own_norms=OWN_QK_NORMS,
    # `mlp_only_layers` have a dense feed-forward.
    roles=EXPERT_ROLES | ROLES,
    norm=lambda config, size: qwen3_moe.Qwen3MoeRMSNorm(size, eps=config.rms_norm_eps),
    stock=QK_PRE,
    stock_names=PRE_NORMS,
)
