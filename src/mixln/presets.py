"""Model sizes by name: those of the Mix-LN experiments (Llama and ViT shapes), and small ones that two CPU cores train in minutes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.errors import SettingsError, first_line, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A shape: SiLU, no biases, untied embeddings, full multi-head attention, RoPE base 10,000, RMSNorm ε 1e-6.

    :param intermediate_size: width of the feed-forward network, or of each expert.
    :param vocabulary_size: rows of the embedding and of the head.
    :param family: `model_type` of the config.
    :param more: other entries of the family's config.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocabulary_size: int = 32_000
    family: str = "llama"
    more: Mapping[str, Any] = field(default_factory=dict)


_OLMO = {
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
}
"""Settings shared by the dense models of the HybridNorm paper (arXiv:2503.04598)."""

_TINY: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "layers": 12,
    "heads": 3,
    "vocabulary_size": 2048,
}
_NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""The default ids of these families are beyond small vocabularies."""

PRESETS: dict[str, Preset] = {
    "tiny": Preset(**_TINY),
    "olmoe-tiny": Preset(
        hidden_size=96,
        intermediate_size=128,
        layers=12,
        heads=3,
        vocabulary_size=2048,
        family="olmoe",
        more={
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "router_aux_loss_coef": 0.01,
            "eos_token_id": None,
            "pad_token_id": None,
        },
    ),
    # The shape of tiny in other families: biases on q, k and v; layers without rotary embedding; capped logits and sliding windows.
    "qwen2-tiny": Preset(**_TINY, family="qwen2", more={"num_key_value_heads": 3}),
    "smollm3-tiny": Preset(**_TINY, family="smollm3", more={"num_key_value_heads": 3, **_NO_TOKENS}),
    "gemma2-tiny": Preset(
        **_TINY,
        family="gemma2",
        more={
            "num_key_value_heads": 3,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
            **_NO_TOKENS,
        },
    ),
    # 1/8 of the width of the sizes below, for two CPU cores; 1b-mini has 1/16 and 7b-mini 1/64. tiny corresponds to 130m.
    "71m-mini": Preset(hidden_size=64, intermediate_size=172, layers=12, heads=2, vocabulary_size=2048),
    "250m-mini": Preset(hidden_size=96, intermediate_size=320, layers=24, heads=3, vocabulary_size=2048),
    "1b-mini": Preset(hidden_size=128, intermediate_size=344, layers=24, heads=4, vocabulary_size=2048),
    "7b-mini": Preset(hidden_size=64, intermediate_size=172, layers=32, heads=2, vocabulary_size=2048),
    # The same number of parameters in the layers as tiny, in half and in twice as many layers.
    "tiny-6": Preset(hidden_size=128, intermediate_size=400, layers=6, heads=4, vocabulary_size=2048),
    "tiny-24": Preset(hidden_size=64, intermediate_size=200, layers=24, heads=2, vocabulary_size=2048),
    "9m": Preset(hidden_size=128, intermediate_size=352, layers=4, heads=4),
    "20m": Preset(hidden_size=256, intermediate_size=688, layers=4, heads=4),
    "35m": Preset(hidden_size=384, intermediate_size=1024, layers=6, heads=8),
    "60m": Preset(hidden_size=512, intermediate_size=1376, layers=8, heads=8),
    "71m": Preset(hidden_size=512, intermediate_size=1368, layers=12, heads=8),
    "130m": Preset(hidden_size=768, intermediate_size=2048, layers=12, heads=12),
    "250m": Preset(hidden_size=768, intermediate_size=2560, layers=24, heads=16),
    "350m": Preset(hidden_size=1024, intermediate_size=2736, layers=24, heads=16),
    "1b": Preset(hidden_size=2048, intermediate_size=5461, layers=24, heads=32),
    "7b": Preset(hidden_size=4096, intermediate_size=11_008, layers=32, heads=32),
    "hybridnorm-550m": Preset(
        hidden_size=1536,
        intermediate_size=4096,
        layers=16,
        heads=16,
        vocabulary_size=100_278,
        more=_OLMO | {"num_key_value_heads": 4},
    ),
    "hybridnorm-1.2b": Preset(
        hidden_size=2048,
        intermediate_size=8192,
        layers=16,
        heads=32,
        vocabulary_size=100_278,
        more=_OLMO | {"num_key_value_heads": 8},
    ),
    "olmoe-1b-7b": Preset(
        hidden_size=2048,
        intermediate_size=1024,
        layers=16,
        heads=16,
        vocabulary_size=50_304,
        family="olmoe",
        more={
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "router_aux_loss_coef": 0.01,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "eos_token_id": None,
            "pad_token_id": None,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class VisionPreset:
    """A vision transformer (arXiv:2010.11929, small ones arXiv:2012.12877): GELU, a feed-forward of four times the width, learned
    positions, LayerNorm ε 1e-6, no dropout.

    :param image_size: height and width, pixels; `patch_size` likewise.
    :param channels: 1 for grey images, 3 for colour.
    """

    hidden_size: int
    layers: int
    heads: int
    image_size: int = 224
    patch_size: int = 16
    channels: int = 3


VISION_PRESETS: dict[str, VisionPreset] = {
    "vit-micro": VisionPreset(hidden_size=96, layers=12, heads=3, image_size=28, patch_size=7, channels=1),
    "vit-tiny": VisionPreset(hidden_size=192, layers=12, heads=3),
    "vit-small": VisionPreset(hidden_size=384, layers=12, heads=6),
    "vit-base": VisionPreset(hidden_size=768, layers=12, heads=12),
}


def model_config(
    model: str, *, layers: int | None = None, vocabulary_size: int | None = None, sequence_length: int = 256
) -> PreTrainedConfig:
    """The stock config that `model` names.

    :param model: a preset's name, or the path of a `config.json` (or the folder that holds one).
    :param layers: number of layers; by default the model's.
    :param vocabulary_size: tokens of the tokenizer in use. A preset takes this size; a config.json must be at least as large.
    :param sequence_length: tokens; a preset's `max_position_embeddings` is at least this.
    :raises SettingsError: if there is no such preset or file, or the file cannot be used.
    """
    from transformers import AutoConfig

    if model in PRESETS:
        preset = PRESETS[model]
        return AutoConfig.for_model(
            preset.family,
            **{
                "hidden_size": preset.hidden_size,
                "intermediate_size": preset.intermediate_size,
                "num_hidden_layers": layers or preset.layers,
                "num_attention_heads": preset.heads,
                "vocab_size": vocabulary_size or preset.vocabulary_size,
                "max_position_embeddings": max(1024, sequence_length),
                "rms_norm_eps": 1e-6,
                "tie_word_embeddings": False,
                **preset.more,
            },
        )
    config = _read_config(model, PRESETS)
    from mixln.hosts import family

    if "causal-lm" not in family(config).heads:
        raise SettingsError(
            f"model {model} is a {config.model_type!r} config, a family without a causal language model; "
            "the tasks language and masked-lm need one, and mixln families lists the families that have one"
        )
    if layers is not None:
        config = _with_layers(model, config, layers)
    if vocabulary_size is not None and config.vocab_size < vocabulary_size:
        raise SettingsError(
            f"vocab_size of {model} must hold the tokenizer's {vocabulary_size} tokens, got {config.vocab_size}; "
            "name a smaller tokenizer or a smaller --vocabulary-size"
        )
    if config.max_position_embeddings < sequence_length:
        raise SettingsError(
            f"max_position_embeddings of {model} must hold the sequence length {sequence_length}, got {config.max_position_embeddings}"
        )
    return config


def _with_layers(model: str, config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The same config with another number of layers. Added layers continue the repeating pattern of `layer_types`.

    :raises SettingsError: if layers are added and `layer_types` has no repeating pattern.
    """
    entries = config.to_dict()
    kinds = entries.get("layer_types")
    if kinds is not None and layers > len(kinds):
        period = next(
            n for n in range(1, len(kinds) + 1) if all(a == b for a, b in zip(kinds, kinds[n:], strict=False))
        )
        if 2 * period > len(kinds):
            raise SettingsError(
                f"layers must be at most the {len(kinds)} of {model}, whose layer_types do not repeat, got {layers}"
            )
        entries["layer_types"] = [kinds[index % period] for index in range(layers)]
    elif kinds is not None:
        entries["layer_types"] = kinds[:layers]
    name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return type(config).from_dict({**entries, name: layers})


def vision_config(
    model: str, *, image_size: int | None = None, patch_size: int | None = None, num_channels: int | None = None
) -> PreTrainedConfig:
    """The stock config of the image classifier that `model` names, without its classes.

    :param model: a preset's name, or the path of a `config.json` (or the folder that holds one).
    :param image_size: height and width, pixels, in place of the model's; `patch_size` and `num_channels` likewise.
    :raises SettingsError: if there is no such preset or file, the file cannot be used, or patches do not divide the image.
    """
    from transformers import AutoConfig

    if model in VISION_PRESETS:
        preset = VISION_PRESETS[model]
        config = AutoConfig.for_model(
            "vit",
            hidden_size=preset.hidden_size,
            intermediate_size=4 * preset.hidden_size,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            image_size=preset.image_size,
            patch_size=preset.patch_size,
            num_channels=preset.channels,
            layer_norm_eps=1e-6,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    else:
        config = _read_config(model, VISION_PRESETS)
        from mixln.hosts import family

        if "image-classification" not in family(config).heads:
            raise SettingsError(
                f"model {model} is a {config.model_type!r} config, a family without an image classifier; give a ViT config"
            )
    given = {"image_size": image_size, "patch_size": patch_size, "num_channels": num_channels}
    config.update({name: value for name, value in given.items() if value is not None})
    for name in ("image_size", "patch_size"):
        if not isinstance(getattr(config, name), int):
            raise SettingsError(
                f"{name} of {model} must be one number, because images are square, got {getattr(config, name)}"
            )
    if config.image_size % config.patch_size:
        raise SettingsError(
            f"image-size must be a multiple of the patch size {config.patch_size}, got {config.image_size}; "
            f"choose --patch-size {_divisor(config.image_size, config.patch_size)}, or another --image-size"
        )
    return config


def _divisor(size: int, near: int) -> int:
    """The divisor of `size` nearest to `near`, smaller than `size` so that an image has more than one patch."""
    divisors = [number for number in range(1, size) if size % number == 0] or [1]
    return min(divisors, key=lambda divisor: abs(divisor - near))


def check_model(model: str, presets: Iterable[str]) -> None:
    """Checks that a model is one of the presets, or a config.json.

    :raises SettingsError: if it is neither.
    """
    if model not in presets and not _config_file(model).is_file():
        raise SettingsError(unknown("model", model, [*presets, "a path to a config.json"]))


def _config_file(model: str) -> Path:
    path = Path(model)
    return path / "config.json" if path.is_dir() else path


def _read_config(model: str, presets: Iterable[str]) -> Any:
    check_model(model, presets)
    from mixln.hosts.configs import read_config

    try:
        return read_config(_config_file(model))
    except Exception as error:  # transformers raises many types here, including its own validation errors
        cause = error.__cause__ or error
        raise SettingsError(f"model {model} cannot be read as a transformers config: {first_line(cause)}") from error
