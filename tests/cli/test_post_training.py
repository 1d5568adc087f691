"""`mixln finetune`, `reward` and `rlhf`, one after the other, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from mixln.cli import main
from mixln.report.wording.training import FIGURES
from tests import decoders
from tests.training.tuned import ROWS

pytestmark = pytest.mark.filterwarnings("default")  # TRL's own
SMALL = (
    "--steps",
    "4",
    "--batch-size",
    "4",
    "--precision",
    "float32",
    "--held-out-examples",
    "6",
    "--evaluations",
    "1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    decoders.save(folder / "base", "mix(0.5)")
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_whole_chain(folder, capsys, tmp_path):
    data = ("--data", folder / "examples.jsonl", *SMALL)
    assert run("finetune", folder / "base", *data, "--out", tmp_path / "ft", "--learning-rate", "1e-3") == 0
    said = capsys.readouterr().out
    assert "for training; 6 held out" in said
    assert FIGURES["loss"] in said
    assert f"model: {tmp_path / 'ft/model'}" in said
    assert run("reward", tmp_path / "ft/model", *data, "--out", tmp_path / "rm", "--lora", "2") == 0
    assert FIGURES["accuracy"] in capsys.readouterr().out
    command = (
        *("rlhf", tmp_path / "ft/model", "--reward-model", tmp_path / "rm/model", *data),
        *("--generations", "2", "--new-tokens", "4", "--out", tmp_path / "rl"),
    )
    assert run(*command) == 0
    said = capsys.readouterr().out
    assert FIGURES["reward"] in said
    assert FIGURES["kl"] in said
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "rl/model").config.placement["name"] == "mix(0.5)"
    assert run(*command) == 0
    assert "already complete: nothing to train" in capsys.readouterr().out
    assert run(*command, "--seed", "1") == 2
    assert "holds another training: seed was 0, now 1" in capsys.readouterr().err


def test_prompts_longer_than_the_context(folder, capsys, tmp_path):
    """They are counted and left out; where none is left, that is said and nothing written."""
    long = [{**row, "prompt": f"one two {row['prompt']} " * 100} for row in ROWS]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, ROWS + long[:20])))
    assert run("finetune", folder / "base", "--data", tmp_path / "some.jsonl", *SMALL, "--out", tmp_path / "ft") == 0
    assert "skipped: longer than the model's context" in capsys.readouterr().out
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, long)))
    for command in ("finetune", "reward"):
        assert run(command, folder / "base", "--data", tmp_path / "all.jsonl", *SMALL, "--out", tmp_path / "none") == 2
        assert "36 are longer than 256 tokens" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


MISTAKES = [
    (("finetune", "BASE", "--data", "none.jsonl"), "data none.jsonl does not exist"),
    (("finetune", "BASE", "--data", "DATA", "--lora", "0"), "lora must be at least 1, got 0"),
    (("finetune", "BASE", "--data", "DATA", "--lora-alpha", "8"), "lora-alpha needs --lora"),
    (("finetune", "BASE", "--data", "DATA", "--epochs", "0"), "epochs must be above 0, got 0.0"),
    (("finetune", "BASE", "--data", "DATA", "--seed", "-1"), "seed must lie in"),
    (("finetune", "nowhere/", "--data", "DATA"), "does not exist"),
    (
        ("rlhf", "BASE", "--reward-model", "BASE", "--data", "DATA"),
        "is a PlacedLlamaForCausalLM, not a model with a scalar head",
    ),
    (
        ("rlhf", "BASE", "--reward-model", "BASE", "--batch-size", "10"),
        "batch-size must be a multiple of generations 4, got 10",
    ),
    (("rlhf", "BASE", "--reward-model", "BASE", "--generations", "1"), "generations must be at least 2, got 1"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(folder, capsys, tmp_path, arguments, words):
    places = {"BASE": folder / "base", "DATA": folder / "examples.jsonl"}
    try:
        code = run(*(places.get(word, word) for word in arguments), "--out", tmp_path / "out")
    except SystemExit as stop:  # of what is wrong with the command line by itself
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("finetune", folder / "base", "--data", folder / "examples.jsonl", *SMALL, "--out", tmp_path / "out") == 2
    assert "only mixln pretrain and reproduce train one model on several devices" in capsys.readouterr().err
