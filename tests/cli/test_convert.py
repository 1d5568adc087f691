"""`mixln convert` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, OPTConfig, OPTForCausalLM

import mixln
from mixln.cli import main
from tests.hosts.test_convert import authors
from tests.tiny import logits, placed, randomise_gains, tiny_config, tokens


@pytest.fixture
def llama(tmp_path: Path) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config()).eval()
    randomise_gains(model)
    model.save_pretrained(tmp_path / "llama")
    return model


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def test_there_and_back(tmp_path, llama, capsys):
    assert convert(tmp_path / "llama", "--out", tmp_path / "placed") == 0
    assert (
        f"PlacedLlamaForCausalLM, {llama.num_parameters():,} parameters: {tmp_path / 'placed'}"
        in capsys.readouterr().out
    )
    assert torch.equal(logits(mixln.from_pretrained(tmp_path / "placed"), tokens()), logits(llama, tokens()))
    assert convert(tmp_path / "placed", "--out", tmp_path / "back") == 0
    one, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("llama", "back"))
    assert one == other
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "back")) is LlamaForCausalLM


def test_checkpoint_of_the_mix_ln_authors(tmp_path, capsys):
    folder, _ = authors(tmp_path / "theirs", ["post", "pre", "pre"])
    assert convert(folder, "--placement", "mix(0.4)", "--out", tmp_path / "ours") == 0
    assert mixln.from_pretrained(tmp_path / "ours").config.placement["name"] == "mix(0.4)"


MISTAKES = [
    (["llama", "--out", "llama"], "out llama already exists"),
    (["llama", "--placement", "mix(0.5)", "--out", "new"], "the weights of a stock llama cannot be given mix(0.5)"),
    (["llama", "--placement", "mixx", "--out", "new"], "placement 'mixx' is not known"),
    (["mix", "--out", "new"], "mix(0.5) has no stock layout: layer 1 of mix(0.5) is x ← N(x + A(x))"),
    (["pre", "--placement", "pre", "--out", "new"], "placement is given by the checkpoint pre"),
    (
        ["theirs", "--out", "new"],
        "placement must be given for theirs, since files of the Mix-LN authors' code do not contain it",
    ),
    (
        ["theirs", "--placement", "pre", "--out", "new"],
        "is not pre: norm model.layers.0.input_layernorm.weight is missing",
    ),
    (["opt", "--out", "new"], "OPTDecoderLayer does not end in a sum of stream and branch: modeling_opt.py"),
    (["nothing-here/at/all", "--out", "new"], "does not exist"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, llama, arguments, said):
    placed("mix(0.5)").save_pretrained(tmp_path / "mix")
    placed("pre").save_pretrained(tmp_path / "pre")
    authors(tmp_path / "theirs", ["post", "pre", "pre"])
    sizes = {
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 16,
    }
    OPTForCausalLM(OPTConfig(**sizes, vocab_size=9)).save_pretrained(tmp_path / "opt")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert convert(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mixln: ")
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before
