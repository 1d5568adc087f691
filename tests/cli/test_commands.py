"""The commands that only print: they answer at once, without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from mixln.cli import main
from mixln.compare.settings import CompareSettings
from mixln.data.settings import TextSettings
from mixln.placement import MODIFIERS, ZOO
from mixln.training.settings import EngineSettings, TrainSettings

COMMAND = str(Path(sys.executable).with_name("mixln"))
HEAVY = """
import sys
from mixln.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
heavy = {"torch", "transformers", "datasets", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "compare"),
        (["compare", "--help"], "--learning-rates"),
        (["plan", "--help"], "--utilisation"),
        (["--version"], version("mixln")),
        (["placements"], "Mix-LN"),
        (["placements", "show", "hybrid*"], "layer 12"),
    ],
    ids=" ".join,
)
def test_it_answers_without_loading_torch(arguments, said):
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAVY, *arguments], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert said in found.stdout


def test_the_installed_command_prints_help_where_nothing_is_asked():
    found = run()
    assert (found.returncode, found.stderr) == (0, "")
    assert "compare" in found.stdout
    assert "placements" in found.stdout


def test_the_version():
    found = run("--version")
    assert (found.returncode, found.stdout, found.stderr) == (0, f"mixln {version('mixln')}\n", "")


def test_the_help_of_compare_names_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for setting in (*fields(CompareSettings), *fields(TextSettings), *fields(TrainSettings), *fields(EngineSettings)):
        if setting.name not in ("text", "training", "engine", "execution", "after"):
            assert f"--{setting.name.replace('_', '-')} " in said


@pytest.mark.parametrize("arguments", [["placements"], ["placements", "list"]], ids=" ".join)
def test_the_list_names_every_placement_and_modifier(capsys, arguments):
    assert main(arguments) == 0
    words = capsys.readouterr().out.split()
    for entry in ZOO.values():
        assert entry.name + entry.arguments.split(" ")[0] in words
    for modifier in MODIFIERS.values():
        assert modifier.name + modifier.arguments in words


def test_show_draws_every_layer(capsys):
    assert main(["placements", "show", "mix(0.25)", "--layers", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("mix(0.25), 8 layers, recommended init: normal\n")
    drawn = [line for line in said.splitlines() if "layer " in line]
    assert len(drawn) == 8
    assert ["x ← N(x + A(x))" in line for line in drawn] == [True] * 2 + [False] * 6
    assert "warning" not in said


@pytest.mark.parametrize(
    ("family", "drawn"),
    [("gpt_neox", "x ← x + A(N(x)) + F(N(x))"), ("olmo3", "x ← x + N(A_QK(x));  x ← x + N(F(x))")],
)
def test_show_draws_the_stock_layers_of_any_family_that_can_be_placed(family, drawn, capsys):
    assert main(["placements", "show", "stock", "--layers", "2", "--family", family]) == 0
    assert sum(drawn in line for line in capsys.readouterr().out.splitlines() if "layer " in line) == 2


def test_show_warns_of_another_architecture(capsys):
    assert main(["placements", "show", "pre", "--family", "gpt_neox"]) == 0
    assert "warning: pre runs attention and feed-forward one after the other" in capsys.readouterr().out


def test_show_warns(capsys):
    assert main(["placements", "show", "mix(0.25)", "--layers", "3"]) == 0
    assert "warning: mix(0.25) rounds to no Post-LN layer in a model of 3" in capsys.readouterr().out
