"""Mixtral: Pre-LN with a mixture of experts."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.mixtral.configuration_mixtral import MixtralConfig

from mixln.hosts.family import Host
from mixln.placement import Placement
from tests.hosts.written.names import EXPERT_ROLES, PRE_NORMS, PROJECTIONS


def _jitter(config: Any, placement: Placement) -> str | None:
    """The experts multiply their input by the jitter in place; without a norm before them, that is the residual stream itself."""
    bare = any(layer.feed_forward.branch_in is None for layer in placement.layers)
    if config.router_jitter_noise and bare:
        return (
            f"router_jitter_noise is {config.router_jitter_noise}, which Mixtral multiplies into the residual stream itself "
            f"if no norm precedes the experts, as in {placement.name}; set it to 0"
        )
    return None


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
    cannot=_jitter,
)
