"""A command on an existing experiment takes from it what is not given; the commands that the tool prints work as they are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from mixln.cli import Others, main
from mixln.cli.compare import COMMANDS, command_of
from mixln.cli.given import given
from mixln.cli.pretrain import Pretrain, trained
from mixln.compare.settings import CompareSettings, VisionCompareSettings
from mixln.compare.store import EXPERIMENT
from mixln.data.settings import ImageSettings, TextSettings
from mixln.errors import StoreError
from mixln.records import to_json
from mixln.training.settings import TrainSettings, VisionTrainSettings
from tests import small


def written(out: Path, settings) -> Path:
    """The `experiment.json` of a comparison with these settings."""
    out.mkdir()
    part = "images" if isinstance(settings, VisionCompareSettings) else "text"
    experiment = {"schema": 1, "settings": settings.shared(), part: {"fingerprint": "x"}, "grid": settings.grid()}
    (out / EXPERIMENT).write_text(json.dumps(to_json({**experiment, "baseline": settings.reference})))
    return out


@pytest.fixture
def language(tmp_path) -> Path:
    settings = CompareSettings(
        model="9m",
        init="small",
        layers=3,
        placements=("post", "mix(0.5)"),
        learning_rates=(0.02,),
        seeds=(7, 8),
        baseline="mix(0.5)",
        text=TextSettings(data="my text.txt", sequence_length=16, held_out=0.2, vocabulary_size=300),
        training=TrainSettings(steps=60, batch_size=4, beta2=0.99),
    )
    return written(tmp_path / "own", settings)


@pytest.fixture
def vision(tmp_path) -> Path:
    settings = VisionCompareSettings(
        image_size=8,
        seeds=(3,),
        images=ImageSettings(data="digits"),
        training=VisionTrainSettings(epochs=20.0, batch_size=32),
    )
    return written(tmp_path / "vision", settings)


def parsed(monkeypatch, *arguments: str):
    """The settings that a command line comes to."""
    found = []
    for kind in (*COMMANDS.values(), Pretrain):
        monkeypatch.setattr(kind, "run", lambda self: found.append(self) or 0)
    assert main(list(arguments)) == 0
    return found[0]


def test_options_that_are_not_given_are_those_of_the_experiment(monkeypatch, language):
    command = parsed(monkeypatch, "compare", "--out", str(language), "--seeds", "7", "8", "9", "--extend")
    assert (command.model, command.init, command.layers) == ("9m", "small", 3)
    assert (command.placements, command.learning_rates, command.seeds) == (("post", "mix(0.5)"), (0.02,), (7, 8, 9))
    assert (command.baseline, command.out, command.extend) == ("mix(0.5)", language, True)
    assert command.text == TextSettings(data="my text.txt", sequence_length=16, held_out=0.2, vocabulary_size=300)
    assert (command.training.total_steps(16), command.training.batch_size, command.training.beta2) == (60, 4, 0.99)


def test_an_option_that_is_given_stands_even_with_the_value_of_the_default(monkeypatch, language):
    command = parsed(monkeypatch, "compare", f"--out={language}", "--model", "tiny", "--steps=300", "--data", "sotu")
    assert (command.model, command.training.steps, command.text.data) == ("tiny", 300, "sotu")
    assert command.text.sequence_length == 16


def test_of_two_ways_to_say_the_same_the_given_one_counts(monkeypatch, language, vision):
    command = parsed(monkeypatch, "compare", "--out", str(language), "--tokens", "3840")
    assert (command.training.steps, command.steps) == (None, 60)
    command = parsed(monkeypatch, "compare", "--out", str(vision), "--steps", "5")
    assert command.training.steps == 5
    command = parsed(monkeypatch, "compare", "--out", str(language), "--tokenizer", "other")
    assert (command.text.tokenizer, command.text.vocabulary_size) == ("other", None)


def test_the_task_is_that_of_the_experiment(monkeypatch, vision):
    command = parsed(monkeypatch, "compare", "--out", str(vision), "--seeds", "3", "4", "--extend")
    assert (command.task, command.image_size, command.images.data, command.training.epochs) == (
        "vision",
        8,
        "digits",
        20,
    )


def test_another_task_is_not_started_with_the_settings_of_this_one(monkeypatch, vision):
    assert parsed(monkeypatch, "compare", "--out", str(vision), "--task", "language").model == "tiny"


def test_other_placements_have_their_own_baseline_unless_they_are_added(monkeypatch, language):
    assert parsed(monkeypatch, "compare", "--out", str(language), "--placements", "pre", "lns").baseline is None
    added = parsed(monkeypatch, "compare", "--out", str(language), "--placements", "lns", "--extend")
    assert added.baseline == "mix(0.5)"


def test_pretrain_takes_the_settings_of_its_experiment(monkeypatch, tmp_path):
    settings = CompareSettings(
        placements=("lns",), learning_rates=(0.5,), seeds=(4,), training=TrainSettings(steps=7), layers=2
    )
    command = parsed(monkeypatch, "pretrain", "--out", str(written(tmp_path / "one", settings)))
    assert (command.placement, command.learning_rate, command.seed, command.training.steps) == ("lns", 0.5, 4, 7)


def test_a_folder_without_an_experiment_leaves_the_defaults(tmp_path):
    assert command_of(["compare", "--out", str(tmp_path)])[0] is COMMANDS["language"]
    assert trained(["pretrain", "--out", str(tmp_path)]) is command_of(["compare", "--out", str(tmp_path)])[1]


def test_a_damaged_experiment_is_one_line(language, capsys):
    (language / EXPERIMENT).write_text("{")
    assert main(["compare", "--out", str(language)]) == 2
    assert capsys.readouterr().err.startswith(f"mixln: {language / EXPERIMENT} is corrupt")


@pytest.mark.parametrize("command", ["compare", "pretrain"])
@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("batch_size", 0, "settings.training cannot be used: batch-size must be at least 1, got 0"),
        ("batch_size", "8", 'settings.training.batch_size must be an integer, got "8"'),
        ("optimizer", "muon", "settings.training.optimizer is unknown to this version of mixln; known: "),
    ],
)
def test_settings_that_this_version_does_not_take_are_one_line(language, command, entry, value, message):
    present = json.loads((language / EXPERIMENT).read_text())
    present["settings"]["training"][entry] = value
    (language / EXPERIMENT).write_text(json.dumps(present))
    with pytest.raises(StoreError, match=re.escape(f"holds settings that cannot be used ({message}")):
        command_of([command, "--out", str(language)])


def test_no_two_commands_share_a_folder_by_default():
    kinds = [*COMMANDS.values(), Pretrain, *(get_args(each)[0] for each in get_args(Others))]
    outs = [kind.out for kind in kinds if hasattr(kind, "out")]
    assert len(outs) == len(set(outs)) >= 11


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("compare --out x --seeds 0 1 --extend", {"out": "x", "seeds": "0", "extend": ""}),
        ("compare --learning_rates=1e-3 --steps -3", {"learning-rates": "1e-3", "steps": "-3"}),
        ("compare --steps 1 --steps 2", {"steps": "2"}),
        ("finetune model", {}),
    ],
)
def test_what_is_given(line, options):
    assert given(line.split()) == options


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare --evaluate.limit 3", "evaluate.limit needs --chain evaluate, which is not given; add it"),
        ("compare --finetune.lora 3 --chain evaluate", "finetune.lora needs --chain finetune"),
        ("compare --reward.steps 3 --chain finetune,evaluate", "reward.steps needs --chain rlhf"),
        ("compare --rlhf.beta 3", "rlhf.beta needs --chain rlhf"),
        ("compare --task vision --steps 3 --epochs 7", "steps and epochs set the same quantity"),
        ("finetune x --steps 3 --epochs 1", "steps and epochs set the same quantity"),
        (
            "compare --chain rlhf --reward.steps 3 --reward.epochs 1",
            "reward.steps and reward.epochs set the same quantity",
        ),
        *(
            (f"compare --{name} ''", f"--{name} cannot be ''")
            for name in ("data", "model", "cache", "init", "tokenizer")
        ),
        ("compare --out ' '", "--out cannot be ''"),
        ("compare --data=", "--data cannot be ''"),
        ("rlhf x --reward-model ''", "--reward-model cannot be ''"),
        ("diagnose ''", "an argument cannot be ''"),
    ],
)
def test_what_would_be_ignored_is_refused(capsys, line, said):
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err.startswith(f"mixln: {said}")


def test_an_option_of_a_step_is_taken_with_the_step(monkeypatch):
    assert parsed(monkeypatch, "compare", "--chain", "evaluate", "--evaluate.limit", "3").after.evaluate.limit == 3


@pytest.mark.long
def test_a_command_that_the_verdict_prints_works_as_it_is(tmp_path, monkeypatch, capsys):
    """The whole of it, through the real command: a small comparison with other settings than the defaults, then what it says."""
    monkeypatch.chdir(tmp_path)
    small.write_folder(tmp_path / "text", small.documents())
    small.write_config(tmp_path / "config.json")
    usual = "--model config.json --data text --held-out 0.1 --sequence-length 16 --batch-size 4 --evaluations 1"
    line = f"compare --placements pre --learning-rates 2e-2 --seeds 3 8 --steps 4 {usual} --jobs 1 --cache cache --out 'my own'"
    assert main(shlex.split(line)) == 0
    said = capsys.readouterr().out
    printed = re.findall(r"^ *mixln (compare .*)$", said, re.MULTILINE)
    assert [shlex.split(command)[1:3] for command in printed] == [["--out", "my own"]] * 2
    assert "--seeds 3 8 0 1 2 --extend" in printed[1]
    code = main([*shlex.split(printed[1]), "--cache", "cache"])
    found = capsys.readouterr()
    assert (code, found.err) == (0, "")
    assert "trials: 2 of 5 done, 3 to run, 4 steps each" in found.out
    assert json.loads(Path("my own", EXPERIMENT).read_text())["grid"]["seeds"] == [3, 8, 0, 1, 2]
    assert main(["compare", "--out", "my own", "--cache", "cache"]) == 0
    assert "trials: 5 of 5 done, nothing to run" in capsys.readouterr().out
    assert main(["compare", "--out", "my own", "--steps", "5"]) == 2
    assert "steps was 4, now 5" in capsys.readouterr().err
