"""Names reach the terminal as they are, and never as something that it obeys."""

from __future__ import annotations

import json
import logging

import pytest
from rich.table import Table
from transformers import LlamaForCausalLM

from mixln.cli import main
from mixln.cli.terminal import Terminal, plain
from tests.tiny import placed, tiny_config

NASTY = "a\x1b]0;title\x07b\x1b[2J\x9bc\u202ed\rx"
PLAIN = r"a\x1b]0;title\x07b\x1b[2J\x9bc\u202ed\rx"


def test_only_what_does_not_print_is_escaped():
    assert plain(NASTY) == PLAIN
    assert plain("naïve café – 日本語 🙂 [bold] a\\b") == "naïve café – 日本語 🙂 [bold] a\\b"
    assert plain("caf\udce9.png") == r"caf\udce9.png"


@pytest.mark.parametrize("how", ["line", "prose", "note", "news", "show", "log"])
def test_everything_that_is_printed_is_plain(how, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    if how == "show":
        table = Table("name")
        table.add_row(NASTY)
        terminal.show(table)
    elif how == "log":
        logging.getLogger("mixln.some.room").info(NASTY)
    else:
        getattr(terminal, how)(NASTY)
    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x07\x9b\u202e\r")
    assert r"\x1b]0;title" in printed


def test_two_lines_stay_two_lines(capsys):
    Terminal().line("one\ntwo")
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("command", [["convert"], ["prune", "--layers", "1"]], ids=lambda command: command[0])
def test_the_name_of_a_folder(command, tmp_path, capsys):
    LlamaForCausalLM(tiny_config()).save_pretrained(tmp_path / NASTY)
    assert main([command[0], str(tmp_path / NASTY), *command[1:], "--out", str(tmp_path / f"o{NASTY}")]) == 0
    assert f"o{PLAIN}" in capsys.readouterr().out
    assert (tmp_path / f"o{NASTY}" / "config.json").is_file()


def test_a_name_in_a_placement(tmp_path, capsys):
    placed("pre").save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    entries = json.loads(path.read_text())
    entries["placement"]["name"] = entries["placement"]["layers"][0]["attention"]["gpas"] = NASTY
    path.write_text(json.dumps(entries))
    assert main(["prune", str(tmp_path / "m"), "--layers", "1", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
