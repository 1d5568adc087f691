"""The presets have exactly the parameters that the papers' shapes give, and other models are checked before they are used."""

from __future__ import annotations

import re

import pytest
import torch

import mixln
from mixln.errors import SettingsError
from mixln.presets import PRESETS, model_config
from tests import small

MILLIONS = {
    "tiny": (1.72, 1.33),
    "olmoe-tiny": (4.39, 4.00),
    "qwen2-tiny": (1.73, 1.33),
    "smollm3-tiny": (1.72, 1.33),
    "gemma2-tiny": (1.53, 1.33),
    "71m-mini": (0.86, 0.59),
    "250m-mini": (3.49, 3.10),
    "1b-mini": (5.27, 4.75),
    "7b-mini": (1.85, 1.59),
    "tiny-6": (1.84, 1.32),
    "tiny-24": (1.58, 1.32),
    "9m": (9.00, 0.80),
    "20m": (19.55, 3.16),
    "35m": (35.20, 10.62),
    "60m": (58.07, 25.31),
    "71m": (70.58, 37.81),
    "130m": (134.11, 84.95),
    "250m": (247.37, 198.22),
    "350m": (367.97, 302.43),
    "1b": (1339.08, 1208.01),
    "7b": (6738.42, 6476.27),
    "hybridnorm-550m": (550.44, 396.41),
    "hybridnorm-1.2b": (1178.52, 973.15),
    "olmoe-1b-7b": (6919.16, 6713.12),
}
"""Parameters, and those without embeddings and head."""


def counts(config) -> tuple[int, int]:
    with torch.device("meta"):
        model = mixln.from_config(config, placement="pre")
    everything = sum(parameter.numel() for parameter in model.parameters())
    outside = sum(
        {id(w): w.numel() for w in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}.values()
    )
    return everything, everything - outside


def test_every_preset_has_its_row():
    assert list(PRESETS) == list(MILLIONS)


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items(), ids=MILLIONS)
def test_parameters_of_a_preset(name, millions):
    assert tuple(round(count / 1e6, 2) for count in counts(model_config(name))) == millions


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_follow_from_the_shape(name):
    """4 d² and 3 d f in each layer, two norms of d, one at the end, and twice V d outside; with E experts E d for the router
    and, in OLMoE, 2 d for its norms on q and k; in Qwen2 3 d for biases."""
    preset = PRESETS[name]
    d, f = preset.hidden_size, preset.intermediate_size
    experts = preset.more.get("num_experts", 0)
    routed = experts * d + 2 * d if experts else 3 * d if preset.family == "qwen2" else 0
    attention = 2 * d * d + 2 * d * d * preset.more.get("num_key_value_heads", preset.heads) // preset.heads
    inside = preset.layers * (attention + 3 * d * f * max(1, experts) + routed + 2 * d) + d
    tables = 1 if preset.more.get("tie_word_embeddings") else 2
    assert counts(model_config(name)) == (inside + tables * preset.vocabulary_size * d, inside)


def test_the_depths_at_equal_parameters_are_equal_to_two_percent():
    inside = [counts(model_config(name))[1] for name in ("tiny-6", "tiny", "tiny-24")]
    assert max(inside) < 1.02 * min(inside)


def test_another_number_of_layers():
    assert model_config("tiny", layers=5).num_hidden_layers == 5
    assert counts(model_config("71m", layers=24))[1] == pytest.approx(2 * 37.81e6, rel=1e-3)


def test_kinds_of_layers_go_on_as_they_began(tmp_path):
    """A pattern of two repeats; one that does not is refused where it would have to go on."""
    from transformers import Qwen3Config

    sizes = {**small.SIZES, "head_dim": 8, "num_key_value_heads": 4, "sliding_window": 4, "use_sliding_window": True}
    sizes["max_position_embeddings"] = 256
    pattern = ["full_attention", "sliding_attention"] * 2
    Qwen3Config(**{**sizes, "num_hidden_layers": 4}, layer_types=pattern).save_pretrained(tmp_path)
    assert model_config(str(tmp_path), layers=6).layer_types == ["full_attention", "sliding_attention"] * 3
    assert model_config(str(tmp_path), layers=3).layer_types == pattern[:3]
    odd = ["full_attention", "full_attention", "full_attention", "sliding_attention"]
    Qwen3Config(**{**sizes, "num_hidden_layers": 4}, layer_types=odd).save_pretrained(tmp_path)
    with pytest.raises(
        SettingsError, match=r"layers must be at most the 4 of .*, whose layer_types do not repeat, got 5"
    ):
        model_config(str(tmp_path), layers=5)


def test_a_preset_is_the_papers_llama():
    config = model_config("130m")
    assert (config.hidden_act, config.rms_norm_eps, config.rope_parameters["rope_theta"]) == ("silu", 1e-6, 10_000.0)
    assert (config.attention_bias, config.mlp_bias, config.tie_word_embeddings) == (False, False, False)
    assert config.num_key_value_heads == config.num_attention_heads == 12
    assert config.initializer_range == 0.02


def test_a_preset_takes_the_vocabulary_and_the_sequence_length():
    config = model_config("tiny", vocabulary_size=777, sequence_length=4096)
    assert (config.vocab_size, config.max_position_embeddings) == (777, 4096)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_config_json_is_read_as_it_is(tmp_path, whole_folder):
    path = small.write_config(tmp_path / "config.json", num_key_value_heads=2)
    config = model_config(str(tmp_path if whole_folder else path), vocabulary_size=300, sequence_length=64)
    assert {name: getattr(config, name) for name in small.SIZES} == small.SIZES
    assert config.num_key_value_heads == 2


def rejected(model: object, **settings: int) -> str:
    with pytest.raises(SettingsError) as caught:
        model_config(str(model), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_preset_lists_the_known_ones(tmp_path):
    for model, meant in (("70b", "did you mean 7b? "), (tmp_path / "missing.json", ""), (tmp_path, "")):
        said = rejected(model)
        assert said == f"model {str(model)!r} is not known; {meant}known: {', '.join(PRESETS)}, a path to a config.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"model_type":', "Expecting value: line 1 column 15"),
        ("", "Expecting value"),
        ("[1]", "Unrecognized model"),
        ('{"vocab_size": 300}', "Unrecognized model"),
        ('{"model_type": "no-such-model"}', "no-such-model"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size"),
        ('{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 5}', "multiple of the number of attention"),
    ],
)
def test_a_config_json_that_cannot_be_used(tmp_path, content, said):
    path = tmp_path / "config.json"
    path.write_text(content)
    found = rejected(path)
    assert found.startswith(f"model {path} cannot be read as a transformers config: ")
    assert said in found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vocabulary_size": 301}, r"vocab_size of \S+ must hold the tokenizer's 301 tokens, got 300; name a smaller"),
        ({"sequence_length": 65}, r"max_position_embeddings of \S+ must hold the sequence length 65, got 64"),
    ],
)
def test_a_config_json_that_is_too_small(tmp_path, settings, said):
    path = small.write_config(tmp_path / "config.json")
    assert re.search(said, rejected(path, **settings))
