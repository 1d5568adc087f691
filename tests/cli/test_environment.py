"""Variables of the environment, widths of the terminal and characters in names change no command's outcome."""

from __future__ import annotations

import io
import os

import pytest
from rich.table import Table
from rich.text import Text

from mixln.cli import main
from mixln.cli.terminal import SafeConsole, Terminal
from mixln.errors import SettingsError
from mixln.files import bytes_text, bytes_texts
from mixln.launch import check_meeting, launched
from mixln.report.tables.grid import escaped


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "abc"}, "RANK in the environment must be an integer of at least 0, got 'abc'"),
        ({"RANK": "-1"}, "RANK in the environment must be an integer of at least 0, got '-1'"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE in the environment must be an integer of at least 1, got 'abc'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE in the environment must be an integer of at least 1, got '0'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE in the environment must be an integer of at least 1, got '999"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK in the environment must be an integer"),
        ({"LOCAL_WORLD_SIZE": "²"}, "LOCAL_WORLD_SIZE in the environment must be an integer"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT in the environment must be an integer"),
        ({"RANK": "5"}, "RANK in the environment must be below WORLD_SIZE 1, got 5"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [["placements"], ["pretrain", "--out", "x"]])
def test_a_launcher_that_says_what_cannot_be_is_one_line(monkeypatch, capsys, variables, said, command):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"mixln: {said}")
    assert found.count("\n") == 1


def test_several_processes_must_know_where_they_meet(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == (0, 2)
    with pytest.raises(SettingsError, match="WORLD_SIZE in the environment is 2, but RANK is not set"):
        check_meeting()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SettingsError, match="MASTER_ADDR is not set; unset it, or start with torchrun"):
        check_meeting()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    check_meeting()


@pytest.mark.parametrize("columns", ["0", "1", "7", "abc", "-5", "", "9" * 400])
def test_help_ends_in_any_width(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit, match="0"):
        main(["plan", "--help"])
    assert "--utilisation" in capsys.readouterr().out
    assert main(["placements"]) == 0
    assert main(["plan", "--step", "x"]) == 2
    assert capsys.readouterr().err.startswith("mixln: Unrecognized options: --step x; did you mean --steps?")


def test_a_width_that_was_not_set_is_not_set_afterwards(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["plan", "--step", "x"]) == 2
    assert os.environ.get("COLUMNS") != ""


def test_a_backend_of_matplotlib_that_does_not_exist_is_no_matter(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert main(["placements"]) == 0
    assert os.environ["MPLBACKEND"] == "agg"


EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\rd\x9b31m\u202e"


@pytest.mark.parametrize("way", ["line", "prose", "note", "news", "table", "text"])
@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_in_a_name_reaches_the_terminal_as_a_command(way, terminal):
    written = io.StringIO()
    made = Terminal()
    made.console = SafeConsole(file=written, force_terminal=terminal, width=200, color_system=None)
    if way in ("table", "text"):
        table = Table(title=EVIL)
        table.add_column(EVIL)
        table.add_row(Text(EVIL))
        made.show(table if way == "table" else Text(EVIL))
    else:
        getattr(made, way)(EVIL)
    said = written.getvalue()
    for sign in ("\x07", "\r", "\x9b", "\u202e", "\x1b]", "\x1b[2J"):
        assert sign not in said
    assert r"a\x1b]0;owned" in said


def test_styles_are_kept():
    written = io.StringIO()
    SafeConsole(file=written, force_terminal=True, color_system="standard").print("one\ntwo", style="red")
    assert "\x1b[31mone" in written.getvalue()


def test_a_name_cannot_break_a_table_in_markdown():
    assert escaped("a\nb\x1b[2Jc|d") == r"a b \[2Jc\|d"


@pytest.mark.parametrize(
    "line", [["compare", "--out", "bad\udcff"], ["compare", "--cache=c\udcff"], ["diagnose", "caf\udce9"]]
)
def test_bytes_that_are_not_utf_8_are_refused_at_once(capsys, line):
    assert main(line) == 2
    assert "is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (20_480, "20.5 KB"), (3.2e6, "3.2 MB"), (17e9, "17.0 GB"), (5e13, "50.0 TB")],
)
def test_bytes_have_a_unit_in_which_they_are_not_zero(count, said):
    assert bytes_text(count) == said


def test_two_amounts_are_told_apart():
    assert bytes_texts(41_000, 20_000) == ("41.0 KB", "20.0 KB")
    assert bytes_texts(1_000_001, 1_000_000) == ("1,000,001 bytes", "1,000,000 bytes")


@pytest.mark.parametrize(
    "line", [["compare", "--cache", "~nouser/c"], ["compare", "--data=~nouser/x.txt"], ["diagnose", "~nouser"]]
)
def test_the_home_of_nobody_is_one_line(capsys, line):
    assert main(line) == 2
    assert "begins with the home of a user who is not known on this machine" in capsys.readouterr().err
