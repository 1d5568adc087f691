"""Tiny configs of every host family: grouped queries where the family has them, weights large enough that every branch shows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OlmoeConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    ViTConfig,
)

from mixln.hosts import HOSTS
from tests.tiny import SIZES, tokens

EXPERTS = {"num_experts_per_tok": 2}
LABELS = {"num_labels": 3, "pad_token_id": 0}

CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 4}),
    "qwen3": (Qwen3Config, {"head_dim": 16, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "olmo2": (Olmo2Config, {}),
    "gemma3_text": (Gemma3TextConfig, {"head_dim": 16, "sliding_window": 4, "sliding_window_pattern": 2}),
    "olmoe": (OlmoeConfig, {"num_experts": 4, **EXPERTS}),
    "mixtral": (MixtralConfig, {"num_local_experts": 4, **EXPERTS}),
    "qwen3_moe": (Qwen3MoeConfig, {"head_dim": 16, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1], **EXPERTS}),
    "gpt2": (GPT2Config, {"n_inner": 48, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "vit": (ViTConfig, {"image_size": 12, "patch_size": 4, "num_channels": 1}),
}  # fmt: skip

SAME_HEADS = (GPT2Config, ViTConfig)
"""Families that have as many key/value heads as query heads."""


def config_of(name: str, **changes: Any) -> PreTrainedConfig:
    cls, own = CONFIGS[name]
    sizes = {key: value for key, value in SIZES.items() if cls not in SAME_HEADS or key != "num_key_value_heads"}
    return cls(**{**sizes, **LABELS, **own, **changes})


def inputs_of(name: str) -> dict[str, Any]:
    """Four short texts, one left-padded, with their labels (and the load-balancing loss of experts); or four images with theirs."""
    if "image-classification" in HOSTS[name].heads:
        generator = torch.Generator().manual_seed(2)
        return {"pixel_values": torch.randn(4, 1, 12, 12, generator=generator), "labels": torch.tensor([0, 1, 2, 1])}
    ids = tokens(batch=4, length=9)
    mask = torch.ones_like(ids)
    ids[0, :3], mask[0, :3] = 0, 0
    labels = ids.clone()
    labels[0, :4] = -100  # the first word after the padding would be foretold by the padding, an embedding of zeros
    routed = {"output_router_logits": True} if "num_experts_per_tok" in CONFIGS[name][1] else {}
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **routed}


def labelled(given: dict[str, Any], head: str) -> dict[str, Any]:
    """The inputs with labels of a head: one of three classes for a text, or for every token."""
    if head == "sequence-classification":
        return {**given, "labels": torch.tensor([0, 1, 2, 1])}
    labels = given["labels"]
    return {**given, "labels": labels.where(labels < 0, labels % 3)} if head == "token-classification" else given
