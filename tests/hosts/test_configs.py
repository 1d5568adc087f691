"""The numbers of a config.json, checked before anything is built."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, LlamaForCausalLM, RobertaConfig, XLNetConfig

from mixln.cli import main
from mixln.diagnostics.stack import find_stack
from mixln.errors import CheckpointError, MixlnError, SettingsError
from mixln.hosts import configs
from mixln.hosts.sources import find_model, load
from mixln.presets import model_config
from mixln.runs.provenance import ModelFacts, model_facts
from tests import small
from tests.tiny import logits, placed, tiny_config, tokens

HUGE = 10**400
"""A whole number of 401 digits, which no float and no tensor holds."""


def described(folder: Path, **changes: Any) -> Path:
    """A folder with a config.json of a small Llama, and a file in the place of its weights."""
    folder.mkdir()
    small.write_config(folder / "config.json", **changes)
    (folder / "model.safetensors").touch()
    return folder


BAD = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers must be an integer from 1 to 1,024, got 1000000000"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
    ({"num_hidden_layers": HUGE}, "got an integer of about 401 digits"),
    ({"model_type": "qwen3", "num_hidden_layers": 10**9}, "num_hidden_layers must be"),
    ({"model_type": "gpt_oss", "num_hidden_layers": 10**9}, "num_hidden_layers must be"),
    ({"model_type": "gpt2", "n_layer": 10**9}, "n_layer must be"),
    ({"text_config": {"num_hidden_layers": 10**9}}, "text_config.num_hidden_layers must be"),
    ({"vocab_size": 3 * 10**7}, "vocab_size must be an integer from 1 to 10,000,000"),
    ({"vocab_size": -1}, "vocab_size must be"),
    ({"hidden_size": -32}, "hidden_size must be"),
    ({"hidden_size": 10**7}, "hidden_size must be"),
    ({"intermediate_size": 10**9}, "intermediate_size must be"),
    ({"num_attention_heads": 0}, "num_attention_heads must be"),
    ({"num_key_value_heads": 0}, "num_key_value_heads must be"),
    ({"max_position_embeddings": 0}, "max_position_embeddings must be an integer from 1 to 100,000,000, got 0"),
    ({"max_position_embeddings": -1}, "max_position_embeddings must be"),
    ({"max_position_embeddings": HUGE}, "max_position_embeddings must be"),
    ({"num_labels": 10**9}, "num_labels must be"),
    ({"head_dim": 10**12}, "head_dim must be"),
    ({"rope_theta": HUGE}, "rope_theta must be"),
    ({"bos_token_id": HUGE}, "bos_token_id must be"),
    ({"rope_parameters": {"rope_theta": HUGE}}, "rope_parameters.rope_theta must be"),
    ({"layer_types": [HUGE]}, "layer_types[0] must be"),
    ({"rms_norm_eps": math.nan}, "rms_norm_eps must be a number, got NaN"),
    ({"attn_implementation": "someone/kernel"}, "names code on the hub, which is not run"),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[said[:50] for _, said in BAD])
def test_a_number_out_of_bounds_is_refused_before_anything_is_built(changes, said, tmp_path):
    folder = described(tmp_path / "m", **changes)
    started = time.perf_counter()
    with pytest.raises(CheckpointError) as diagnosed:
        find_model(str(folder), cache=tmp_path)
    with pytest.raises(SettingsError) as planned:
        model_config(str(folder))
    assert time.perf_counter() - started < 5
    for caught in (diagnosed, planned):
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ["diagnose", "m", "--out", "out"],
        ["prune", "m", "--layers", "1", "--out", "out"],
        ["convert", "m", "--out", "out"],
        ["finetune", "m", "--data", "rows.jsonl", "--out", "out"],
        ["plan", "--model", "m"],
        ["compare", "--model", "m", "--out", "out", "--steps", "1"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_it_in_one_line(command, tmp_path, monkeypatch, capsys):
    described(tmp_path / "m", model_type="qwen3", num_hidden_layers=10**9)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "num_hidden_layers must be an integer from 1 to 1,024, got 1000000000" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_that_is_no_config_by_its_size(tmp_path):
    folder = described(tmp_path / "m")
    with (folder / "config.json").open("r+b") as file:
        file.truncate(configs.LARGEST_FILE + 1)
    for read in (lambda: find_model(str(folder), cache=tmp_path), lambda: model_config(str(folder))):
        with pytest.raises(MixlnError, match=r"config\.json has 67,108,865 bytes, more than"):
            read()


def test_the_configs_of_every_family_are_within_the_bounds():
    """The default configs of transformers, nested ones included; a few classes need arguments and are left out."""
    checked = 0
    for family in CONFIG_MAPPING:
        try:
            entries = CONFIG_MAPPING[family]().to_dict()
        except Exception:
            continue
        configs.check(entries)
        checked += 1
    assert checked > 0.9 * len(CONFIG_MAPPING)


@pytest.mark.parametrize(
    "entries",
    [
        {
            "num_hidden_layers": 126,
            "hidden_size": 65_536,
            "vocab_size": 5_000_000,
            "max_position_embeddings": 10_485_760,
        },
        {"num_key_value_heads": [8, 0, 8], "intermediate_size": [0, 24]},
        {"time_step_limit": [0.0, math.inf], "rope_theta": 10_000_000_000, "pad_token_id": -1, "chunk_size": -1},
        {"num_hidden_layers": "one per entry of placement.layers", "vision_feature_layer": -2, "tie_layers": True},
    ],
)
def test_what_real_configs_hold_is_let_through(entries):
    configs.check(entries)


@pytest.mark.parametrize(
    "switch", [{"return_dict": False}, {"output_attentions": True}, {"output_hidden_states": True}]
)
def test_switches_of_its_author_do_not_change_what_a_model_gives(switch, tmp_path):
    model = LlamaForCausalLM(tiny_config()).eval()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **switch}))
    loaded = load(find_model(str(tmp_path), cache=tmp_path), whole=True)
    assert torch.equal(logits(loaded, tokens()), logits(model, tokens()))
    assert find_stack(loaded).run({"input_ids": tokens()}).shape[-1] == model.config.hidden_size
    assert model_config(str(tmp_path), sequence_length=16).return_dict


def test_a_stock_config_may_have_an_entry_placement(tmp_path):
    LlamaForCausalLM(tiny_config(placement="mid")).save_pretrained(tmp_path / "m")
    source = find_model(str(tmp_path / "m"), cache=tmp_path)
    assert model_facts(source) == ModelFacts(source=str(tmp_path / "m"), family="llama")
    for command in (["prune", "--layers", "1"], ["convert"]):
        out = tmp_path / command[0]
        assert main([command[0], str(tmp_path / "m"), *command[1:], "--out", str(out)]) == 0


def test_a_record_of_a_placement_with_an_absurd_factor(tmp_path):
    placed("deepnorm").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    entries = json.loads(path.read_text())
    entries["placement"]["layers"][0]["attention"]["skip_scale"] = 1e30
    path.write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=r"skip_scale must lie in \[-10,000, 10,000\], got 1e\+30"):
        find_model(str(tmp_path), cache=tmp_path)


def test_positions_of_families_that_count_them_otherwise():
    assert configs.positions(XLNetConfig()) is None
    assert configs.positions(RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    with pytest.raises(ValueError, match="must leave at least one position for a token"):
        configs.config_of({"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 1})


def test_a_context_of_one_token_cannot_be_measured(tmp_path, capsys):
    LlamaForCausalLM(tiny_config(max_position_embeddings=1)).save_pretrained(tmp_path / "m")
    assert main(["diagnose", str(tmp_path / "m"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "max_position_embeddings of model" in said
    assert "must be at least 8 to measure it, got 1" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pre", "hybrid*"])
def test_a_placed_config_is_validated_when_it_is_read(name, tmp_path):
    """transformers validates its own classes when they are built, and placed ones only when they are saved."""
    placed(name).save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**entries, "hidden_size": 9}))
    with pytest.raises(
        CheckpointError, match=r"hidden size \(9\) is not a multiple of the number of attention heads"
    ) as caught:
        find_model(str(tmp_path), cache=tmp_path)
    assert "\n" not in str(caught.value)
