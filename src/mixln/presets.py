"""Model sizes by name: those of the Mix-LN experiments (Llama shapes), and small ones that two cores train in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.errors import SettingsError, first_line, unknown
from mixln.records import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A shape: SiLU, no biases, untied embeddings, full multi-head attention, RoPE base 10,000, RMSNorm ε 1e-6.

    :param intermediate_size: of the feed-forward, or of each expert.
    :param vocabulary_size: tokens of the vocabulary, for the embedding and the head each.
    :param family: `model_type` of the config.
    :param more: what else the family's config needs.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocabulary_size: int = 32_000
    family: str = "llama"
    more: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(hidden_size=96, intermediate_size=256, layers=12, heads=3, vocabulary_size=2048),
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
}


def model_config(model: str, *, vocabulary_size: int | None = None, sequence_length: int = 256) -> PreTrainedConfig:
    """The stock config that `model` names.

    :param model: a preset's name, or the path of a `config.json` (or the folder that holds one).
    :param vocabulary_size: tokens of the tokenizer in use. A preset takes this size; a config.json must be at least as large.
    :param sequence_length: tokens; a preset's `max_position_embeddings` is at least this.
    :raises SettingsError: if there is no such preset or file, or the file cannot be used.
    """
    from transformers import AutoConfig

    if model in PRESETS:
        preset = PRESETS[model]
        return AutoConfig.for_model(
            preset.family,
            hidden_size=preset.hidden_size,
            intermediate_size=preset.intermediate_size,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            vocab_size=vocabulary_size or preset.vocabulary_size,
            max_position_embeddings=max(1024, sequence_length),
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            **preset.more,
        )
    config = _read_config(model)
    from mixln.hosts import family

    if "causal-lm" not in family(config).heads:
        raise SettingsError(
            f"model {model} is a {config.model_type!r} config, a family without a causal language model"
        )
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


def _read_config(model: str) -> Any:
    from transformers import AutoConfig

    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise SettingsError(unknown("model", model, [*PRESETS, "a path to a config.json"]))
    try:
        read_json(path)
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds here, its own validation errors among them
        cause = error.__cause__ or error
        raise SettingsError(f"model {model} cannot be read as a transformers config: {first_line(cause)}") from error
