"""Module names that most families share with Llama, and stock layers of several families."""

from __future__ import annotations

from dataclasses import replace

from mixln.placement.entry import FULL_QK_NORM, PRE, QK_NORM, SANDWICH

QK_PRE = replace(PRE, projections=QK_NORM)
FULL_QK_PRE = replace(PRE, projections=FULL_QK_NORM)
QK_SANDWICH = replace(SANDWICH, projections=QK_NORM)

PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "context": "o_proj"}
OWN_QK_NORMS = {"query": "q_norm", "key": "k_norm"}
PRE_NORMS = {
    "attention_residual.branch_in": "input_layernorm",
    "feed_forward_residual.branch_in": "post_attention_layernorm",
}

ATTENTION_ROLES = {
    "embed_tokens": "embedding",
    "lm_head": "head",
    "score": "head",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "attention_out",
}
ROLES = ATTENTION_ROLES | {
    "mlp.gate_proj": "feed_forward_in",
    "mlp.up_proj": "feed_forward_in",
    "mlp.down_proj": "feed_forward_out",
}
EXPERT_ROLES = ATTENTION_ROLES | {
    # Gate and up projections of all experts, fused in one weight.
    "experts.gate_up_proj": ("feed_forward_in", "feed_forward_in"),
    "experts.down_proj": "feed_forward_out",
}
