"""OLMoE: Pre-LN with norms over the full width of q and k, and a mixture of experts."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.olmoe import modeling_olmoe as olmoe
from transformers.models.olmoe.configuration_olmoe import OlmoeConfig

from mixln.hosts.family import Host
from mixln.placement.entry import FULL_QK_PRE
from tests.hosts.written.names import EXPERT_ROLES, OWN_QK_NORMS, PRE_NORMS, PROJECTIONS


class OlmoeForSequenceClassification(GenericForSequenceClassification, olmoe.OlmoePreTrainedModel):
    """The sequence-classification head, which transformers lacks for OLMoE."""

    # transformers would search the source of this module.
    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return olmoe.OlmoeModel._can_set_experts_implementation()


HOST = Host(
    config=OlmoeConfig,
    base=olmoe.OlmoeModel,
    heads={
        "causal-lm": (olmoe.OlmoeForCausalLM, AutoModelForCausalLM),
        "sequence-classification": (OlmoeForSequenceClassification, AutoModelForSequenceClassification),
    },
    projections=PROJECTIONS,
    own_norms=OWN_QK_NORMS,
    roles=EXPERT_ROLES,
    norm=lambda config, size: olmoe.OlmoeRMSNorm(size, eps=config.rms_norm_eps),
    stock=FULL_QK_PRE,
    stock_names=PRE_NORMS,
)
