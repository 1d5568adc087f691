"""Checks of the headers of a checkpoint's files, and of which files are read."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from mixln.cli import main
from mixln.errors import CheckpointError
from mixln.hosts.sources import Source, find_model, identity, load
from mixln.training.reward import with_scalar_head
from tests.hosts.test_convert import authors
from tests.tiny import logits, tiny_config, tokens

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
UP = "model.layers.0.mlp.up_proj.weight"


def find(folder: Path) -> Any:
    return find_model(str(folder), cache=folder)


def llama(folder: Path, **saving: Any) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_config()).save_pretrained(folder, **saving)
    return folder


def with_weights(folder: Path, **changes: torch.Tensor) -> Path:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **changes}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def refusal(folder: Path, **loading: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(find(folder), **loading)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64], ids=str)
def test_weights_that_are_no_floating_point_numbers_are_refused(dtype, tmp_path):
    folder = llama(tmp_path / "m")
    with_weights(folder, **{UP: load_file(folder / "model.safetensors")[UP].to(dtype)})
    for whole in (False, True):
        assert f"weight {UP} is stored as " in refusal(folder, whole=whole)
    with pytest.raises(CheckpointError, match="is stored as"):
        with_scalar_head(find(folder), seed=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_every_floating_point_format_is_read(dtype, tmp_path):
    folder = llama(tmp_path / "m")
    with_weights(folder, **{UP: load_file(folder / "model.safetensors")[UP].to(dtype)})
    assert load(find(folder)).dtype == torch.float32


def test_the_files_of_the_mix_ln_authors_are_held_to_it_too(tmp_path, capsys):
    folder, _ = authors(tmp_path / "m", ["post", "pre", "pre"])
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, UP: weights[UP].to(torch.int8)}, folder / "pytorch_model.bin")
    assert main(["convert", str(folder), "--placement", "mix(0.4)", "--out", str(tmp_path / "out")]) == 2
    assert f"weight {UP} is stored as torch.int8, but must be floating point" in capsys.readouterr().err


def mask(kind: torch.dtype) -> torch.Tensor:
    return torch.ones(1, 1, 8, 8).tril().to(kind)


CONSTANTS = [
    ("GPT2LMHeadModel", "transformer.h.{}.attn", {"n_positions": 32}),
    ("GPTJForCausalLM", "transformer.h.{}.attn", {"n_positions": 32, "rotary_dim": 4}),
    ("GPTNeoForCausalLM", "transformer.h.{}.attn.attention", {"attention_types": [[["global", "local"], 1]]}),
    ("GPTNeoXForCausalLM", "gpt_neox.layers.{}.attention", {}),
]


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "where", "more"), CONSTANTS, ids=[name for name, *_ in CONSTANTS])
def test_constants_of_old_versions_are_no_weights(name, where, more, kind, tmp_path):
    made = getattr(transformers, name)
    torch.manual_seed(0)
    model = made(made.config_class(**SIZES, **more)).eval()
    model.save_pretrained(tmp_path / "m")
    constants = {
        f"{where.format(layer)}.{buffer}": value
        for layer in range(2)
        for buffer, value in {"bias": mask(kind), "masked_bias": torch.tensor(-1e4)}.items()
    }
    with_weights(tmp_path / "m", **constants)
    assert torch.equal(logits(load(find(tmp_path / "m"), whole=True), tokens()), logits(model, tokens()))
    assert main(["prune", str(tmp_path / "m"), "--layers", "1", "--out", str(tmp_path / "p")]) == 0
    if name == "GPT2LMHeadModel":
        assert main(["convert", str(tmp_path / "m"), "--out", str(tmp_path / "c")]) == 0
        assert torch.equal(logits(load(find(tmp_path / "c"), whole=True), tokens()), logits(model, tokens()))


def test_a_weight_that_a_model_has_no_place_for_is_refused_still(tmp_path):
    folder = with_weights(llama(tmp_path / "m"), **{"model.layers.0.extra.weight": torch.ones(3)})
    assert "does not use weight model.layers.0.extra.weight" in refusal(folder, whole=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 9_000_000}, "numbers; they do not belong together"),
        ({"intermediate_size": 1_000_000}, "numbers; they do not belong together"),
        ({"num_hidden_layers": 1_000}, "its config describes 1,000 layers, but its files hold 30 tensors"),
    ],
)
def test_a_model_far_larger_than_its_files_is_refused_without_its_memory(changes, said, tmp_path, monkeypatch):
    """Nothing of the size that the config describes is made outside of the device `meta`."""
    folder = with_config(llama(tmp_path / "m"), **changes)
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the weights were read"))
    for whole in (False, True):
        assert said in refusal(folder, whole=whole)
    with pytest.raises(CheckpointError, match="do not belong together"):
        with_scalar_head(find(folder), seed=0)


def sharded(folder: Path) -> Path:
    llama(folder, max_shard_size="20kB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def with_shard(folder: Path, name: Any) -> str:
    """Puts another name in the place of the first file that the index lists, which is returned."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = min(index["weight_map"].values())
    index["weight_map"] = {key: name if file == first else file for key, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    return first


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "{}/outside.safetensors", "in/side.safetensors", "weights.bin", "..", 7, None]
)
def test_an_index_names_files_of_its_own_folder(name, tmp_path):
    folder = sharded(tmp_path / "m")
    first = with_shard(folder, name.format(tmp_path) if isinstance(name, str) else name)
    shutil.copy(folder / first, tmp_path / "outside.safetensors")
    for look in (load, identity):
        with pytest.raises(CheckpointError, match=r"must list \.safetensors files in its own folder"):
            look(find(folder))


def test_what_else_is_wrong_with_an_index(tmp_path):
    folder = sharded(tmp_path / "m")
    first = with_shard(folder, "gone.safetensors")
    assert "lists gone.safetensors, which is missing" in refusal(folder)
    shutil.copy(folder / first, folder / "gone.safetensors")
    assert load(find(folder)).num_parameters() > 0
    others = [file.name for file in folder.glob("model-*.safetensors") if file.name != first]
    shutil.copy(folder / others[0], folder / "gone.safetensors")
    assert "and in another file" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "model.safetensors.index.json cannot be read" in refusal(folder)


def test_the_identity_sees_which_files_an_index_names(tmp_path):
    folder = sharded(tmp_path / "m")
    plain = identity(find(folder))
    first = sorted(file.name for file in folder.glob("model-*.safetensors"))[0]
    shutil.copy(folder / first, folder / "other.safetensors")
    before = identity(find(folder))
    with_shard(folder, "other.safetensors")
    assert len({plain, before, identity(find(folder))}) == 3


def test_the_identity_of_a_hub_model_is_its_commit():
    source = Source(
        name="a/b", title="b", path="nobody/at-all", task="causal-lm", config=tiny_config(), revision="0123"
    )
    assert identity(source) == "nobody/at-all@0123"
    assert identity(replace(source, revision="4567")) != identity(source)


@pytest.mark.parametrize("index", [False, True])
def test_an_adapter_beside_a_model_is_refused(index, tmp_path):
    """With PEFT installed, transformers would apply it, a second time if it has been merged."""
    folder = (sharded if index else llama)(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    with pytest.raises(
        CheckpointError, match=r"has an adapter in the same folder .* move the adapter_\* files elsewhere"
    ):
        find(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_file_of_a_model(name, kind, tmp_path):
    folder = llama(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"is a folder without config\.json|contains .*, a pipe or device"):
        find(folder)


def test_an_adapter_alone_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="a folder with an adapter but no model; merge the adapter"):
        find(tmp_path)
