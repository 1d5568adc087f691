"""OLMo 2: res-post-norm with norms over the full width of q and k."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.olmo2 import modeling_olmo2 as olmo2
from transformers.models.olmo2.configuration_olmo2 import Olmo2Config

from mixln.hosts.family import Host
from mixln.placement.entry import RES_POST
from tests.hosts.written.names import OWN_QK_NORMS, PROJECTIONS, ROLES

HOST = Host(
    config=Olmo2Config,
    base=olmo2.Olmo2Model,
    heads={
        "causal-lm": (olmo2.Olmo2ForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (olmo2.Olmo2ForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    down="down_proj",
    own_norms=OWN_QK_NORMS,
    roles=ROLES,
    norm=lambda config, size: olmo2.Olmo2RMSNorm(size, eps=config.rms_norm_eps),
    stock=RES_POST,
    stock_names={
        "attention_residual.branch_out": "post_attention_layernorm",
        "feed_forward_residual.branch_out": "post_feedforward_layernorm",
    },
    body="llama",
)
