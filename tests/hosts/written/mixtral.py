"""Mixtral: Pre-LN with a mixture of experts."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.mixtral.configuration_mixtral import MixtralConfig

from mixln.hosts.family import Host
from tests.hosts.written.names import EXPERT_ROLES, PRE_NORMS, PROJECTIONS

HOST = Host(
    config=MixtralConfig,
    base=mixtral.MixtralModel,
    heads={
        "causal-lm": (mixtral.MixtralForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (mixtral.MixtralForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    roles=EXPERT_ROLES,
    norm=lambda config, size: mixtral.MixtralRMSNorm(size, eps=config.rms_norm_eps),
    stock_names=PRE_NORMS,
)
