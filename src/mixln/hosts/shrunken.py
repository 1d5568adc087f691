"""Shrinks the config of any family: a few layers of tiny width that still contain every kind of layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

HIDDEN, HEADS, GROUPS, HEAD, EXPERTS, VOCABULARY, LAYERS = 64, 4, 2, 16, 8, 128, 4
"""Features, heads, key/value heads, features of a head, experts, tokens and layers of a shrunken model."""

DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
RULES: tuple[tuple[str, Any], ...] = (
    (r"num_hidden_layers|n_layers?|num_layers|depth|encoder_(num_hidden_)?layers|num_encoder_layers", LAYERS),
    # Another number, so that the two stacks of an encoder-decoder are told apart.
    (r"decoder_(num_hidden_)?layers|num_decoder_layers", LAYERS - 1),
    (r"vocab_size|vocab_size_per_layer_input", VOCABULARY),
    (r"(bos|eos|pad|unk|sep|cls|mask|decoder_start|image|boi|eoi|audio|video)_token(_id|_index)", 1),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_(source|target)_positions", 64),
    (r"original_max_position_embeddings", 32),
    (r"hidden_size|d_model|n_embd|embedding_size|word_embed_proj_dim|dim_model|embed_dim|hidden_dim", HIDDEN),
    (r"embedding_dim|lru_width", HIDDEN),
    (r"num_attention_heads|n_heads?|num_heads|attention_heads|num_attn_heads", HEADS),
    (r"(num_)?(encoder|decoder)_(num_)?attention_heads", HEADS),
    (r"num_key_value_heads|num_kv_heads|n_head_kv|multi_query_group_num|kv_n_heads|num_global_key_value_heads", GROUPS),
    (r"(swa_)?(num_)?kv_heads|swa_num_key_value_heads|num_attention_groups", GROUPS),
    (r"swa_num_attention_heads", HEADS),
    (r"(local_|swa_|swa_v_|global_|attention_|attn_)?head_dim|kv_channels|d_kv|v_head_dim|query_pre_attn_scalar", HEAD),
    (r"qk_head_dim", 2 * HEAD),
    (r"qk_nope_head_dim|qk_rope_head_dim|indexer_head_dim|index_head_dim", HEAD),
    (r"rotary_dim", 8),
    (r"q_lora_rank|kv_lora_rank|o_lora_rank", 24),
    (r"index_n_heads|indexer_n_heads|n_index_heads", HEADS),
    (r"index_topk|indexer_topk", 4),
    (r"(moe_|shared_expert_|shared_|dense_|expert_)?(ffn_|mlp_)?(intermediate_size|ffn_hidden_size)(_mlp|_dense)?", 48),
    (r"n_inner|ffn_dim|ffn_size|d_ff|expansion_dim|encoder_ffn_dim|decoder_ffn_dim|moe_latent_size", 48),
    (r"(n|num|num_local|num_routed|n_routed|moe_num|num_moe)_experts|expert_num", EXPERTS),
    (r"(num_)?experts_per_tok(en)?|num_selected_experts|moe_(top)?_?k|top_k_experts|num_experts_per_token", 2),
    (r"n_group|num_expert_groups?", 2),
    (r"topk_group|num_limited_groups", 1),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index|n_dense_layers", 1),
    (r"sliding_window|attention_window_size|sliding_window_size|local_attention|window_size|attention_chunk_size", 4),
    (r"sliding_window_pattern|full_attention_interval", 2),
    (r"heavily_compressed_attention", 4),
    (r"attn_layer_period", 2),
    (r"attn_layer_offset", 1),
    (r"linear_num_key_heads", 2),
    (r"linear_num_value_heads", 4),
    (r"linear_(key|value)_head_dim", 8),
    (r"(mamba_)?(d_state|state_size)|ssm_state_size", 8),
    (r"mamba_d_ssm", 128),
    (r"num_attention_heads_per_layer", HEADS),
    (r"mamba_n_heads", 8),
    (r"mamba_d_head", 16),
    (r"mamba_n_groups", 1),
    (r"image_size", 16),
    (r"patch_size", 4),
    (r"num_channels", 3),
    (r"num_register_tokens", 2),
    (r"num_nextn_predict_layers|num_mtp_layers", 0),
)
"""Regular expression for the whole name of an entry → its value. An entry that is absent, `None`, 0 or no number is not set."""


FIXED: dict[str, Any] = {
    # Empty by default, so that a kind of layer would be absent.
    "mlp_only_layers": [1],
    "attn_layer_indices": [1],
    # [kinds, repetitions]
    "attention_types": [[["global", "local"], LAYERS // 2]],
    # A layer that is left out in training has no gradient.
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
"""Entry → its value, if the family has it."""
SIZES = ("image_size", "patch_size")
"""Entries that are one number, or one per side."""
DERIVED = ("model_type", "architectures", "transformers_version", "dtype", "out_features", "out_indices", "stage_names")
"""Entries that the config class sets by itself."""
MISSING = {
    "head_dim": HEAD,
    "num_key_value_heads": GROUPS,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
}
"""Entry → its value where a family's default is `None`."""


MULTIMODAL_ROTARY = "(cosmos3_edge|hy_v4_vl|qwen2_vl|qwen2_5_vl|glm4v|glm4v_moe|glm_ocr|glm_image)_text"
"""Families whose code has the number of feature pairs that encode time, height and width, for a head of the usual size."""


def shrunken(cls: type[PreTrainedConfig], **changes: Any) -> PreTrainedConfig:
    """The family's default config, made small.

    :param changes: entries that are set afterwards.
    """
    small = _small(cls().to_dict())
    for name in DERIVED:
        small.pop(name, None)
    if re.fullmatch(MULTIMODAL_ROTARY, cls.model_type):
        small["rope_parameters"] = {**small["rope_parameters"], "mrope_section": [2, 3, 3]}
    return cls(**{**small, **changes})


def _small(entries: Mapping[str, Any]) -> dict[str, Any]:
    depth = next((entries[name] for name in DEPTHS if isinstance(entries.get(name), int)), None)
    small = {name: _value(name, value, depth) for name, value in entries.items()}
    # Latent attention has as many key/value heads as heads.
    if small.get("kv_lora_rank") and "num_key_value_heads" in small:
        small["num_key_value_heads"] = HEADS
    if small.get("swa_head_dim") and small.get("qk_rope_head_dim"):
        small["swa_head_dim"] = 2 * HEAD
    return small


def _value(name: str, value: Any, depth: int | None) -> Any:
    if name in FIXED:
        return FIXED[name]
    if value is None:
        return MISSING.get(name)
    if isinstance(value, Mapping):
        per_layer = value and all(str(key).isdigit() and isinstance(entry, Mapping) for key, entry in value.items())
        return _by_layer(value) if per_layer else _small(value)
    if name in SIZES and isinstance(value, list | tuple):
        return [_value(name, item, None) for item in value]
    if isinstance(value, list) and len(value) == depth:
        return [_value(name, item, None) for item in _kinds(value)]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return value
    return next((size for names, size in RULES if re.fullmatch(names, name)), value)


def _by_layer(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Entries of single layers, by index: those of the first layer that has some, for the last layer."""
    first = next(iter(values))
    return {type(first)(LAYERS - 1): _small(values[first])}


def _kinds(kinds: list[Any]) -> list[Any]:
    """A list of one entry a layer with every kind in it, in the order in which they first appear."""
    distinct = list(dict.fromkeys(kinds))
    if distinct == ["linear_attention"]:
        distinct.append("full_attention")  # caches need one
    return (distinct * LAYERS)[: max(LAYERS, len(distinct))]
