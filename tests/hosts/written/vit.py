"""ViT: LayerNorm, learned positions, bidirectional attention over patches; Pre-LN."""

from __future__ import annotations

from torch import nn
from transformers import AutoModelForImageClassification
from transformers.models.vit import modeling_vit as vit
from transformers.models.vit.configuration_vit import ViTConfig

from mixln.hosts.family import Host
from tests.hosts.written.names import PROJECTIONS

HOST = Host(
    config=ViTConfig,
    base=vit.ViTModel,
    heads={"image-classification": (vit.ViTForImageClassification, AutoModelForImageClassification)},
    pooler="pooler",
    final_norm="layernorm",
    attention="attention",
    projections=PROJECTIONS,
    down="fc2",
    roles={
        "classifier": "head",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "o_proj": "attention_out",
        "mlp.fc1": "feed_forward_in",
        "mlp.fc2": "feed_forward_out",
    },
    norm=lambda config, size: nn.LayerNorm(size, eps=config.layer_norm_eps),
    eps=lambda config: config.layer_norm_eps,
    stock_names={
        "attention_residual.branch_in": "layernorm_before",
        "feed_forward_residual.branch_in": "layernorm_after",
    },
)
