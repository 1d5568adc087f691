"""The fuzzer finds what it looks for: commands that do wrong on purpose, in place of the real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.fuzz import runner
from tests.faults.fuzz.case import Case
from tests.faults.fuzz.commands import BASES, OPTIONS
from tests.faults.fuzz.judge import complaint, examine
from tests.faults.fuzz.kinds import KINDS, inputs_of


def refuse(said: str = "mixln: no") -> int:
    print(said, file=sys.stderr)
    return 2


def wait_for_a_pipe() -> int:
    os.mkfifo("pipe")
    return len(Path("pipe").read_bytes())


def leave_a_process() -> int:
    subprocess.Popen(["sleep", "60"])
    return 0


def put(name: str, text: str = "x") -> int:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return 0


def lose(name: str, code: int = 0) -> int:
    Path(name).unlink()
    return refuse() if code == 2 else code


def set_aside(name: str) -> int:
    Path(name).rename(f"{name}.passed-over")
    return put(name)


WRONG: dict[str, tuple[Callable[[], int], str]] = {
    "a hang that never gives the interpreter back": (lambda: len(re.findall(r"(a+)+$", "a" * 40 + "b")), "a hang"),
    "a hang in an open": (wait_for_a_pipe, "a hang"),
    "an error": (lambda: 1 // 0, "ZeroDivisionError"),
    "more memory than there is": (lambda: len(bytearray(2**34)), "MemoryError"),
    "an abort": (os.abort, "exit code -6"),  # type: ignore[dict-item]
    "a process that stays": (leave_a_process, "it left processes sleep"),
    "a temporary file that stays": (lambda: put(".x.mixln-0123456789ab"), "it left ['.x.mixln-0123456789ab']"),
    "a refusal of two lines": (lambda: refuse("mixln: no\nno"), "not one line"),
    "a refusal that obeys": (lambda: refuse("mixln: \x1b[2J"), "not clear"),
    "a refusal that writes": (lambda: put("new/x") or refuse(), "a refusal changed ['new', 'new/x']"),
    "a refusal that deletes": (lambda: lose("out/notes.txt", 2), "a refusal changed ['out/notes.txt']"),
    "a file of the user's that is gone": (lambda: lose("out/notes.txt"), "lost: notes.txt is gone"),
    "a file of the user's that is changed": (lambda: put("out/notes.txt"), "lost: notes.txt is changed"),
    "a file elsewhere": (lambda: put("notes.txt"), "lost: notes.txt is changed, which lies outside of --out out"),
    "a file of ours that the user changed": (lambda: put("out/weights"), "lost: weights is changed"),
    "a failed trial": (lambda: put("out/error.txt", "Traceback"), "an error in a trial"),
    "a failure among what stalled": (lambda: print("stalled; failed (ValueError)") or 1, "exit code 1"),
    "a picture of the user's": (lambda: put("out/mine.png"), "lost: mine.png is changed"),
    "another exit code": (lambda: 3, "exit code 3"),
    "no reason": (lambda: 1, "exit code 1"),
}
RIGHT: dict[str, tuple[Callable[[], int], str]] = {
    "a refusal": (refuse, "refused"),
    "a refusal that fills the cache": (lambda: put("cache/x") or refuse(), "refused"),
    "a result": (lambda: put("out/result.json"), "ran to its end"),
    "a file of ours that is changed": (lambda: put("out/model"), "ran to its end"),
    "a file of ours that is gone": (lambda: lose("out/model"), "ran to its end"),
    "a file that got another name": (lambda: set_aside("out/weights"), "ran to its end"),
    "a training that diverged": (lambda: print("diverged at step 3") or 1, "ended with 1"),
}


@pytest.fixture
def materials(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(runner, "USUAL", 2)
    monkeypatch.setattr(runner, "GRACE", 0.5)
    folder = tmp_path / "materials"
    for name in ("notes.txt", "out/model", "out/weights", "out/result.json"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("theirs")
    return folder


CASE = Case(
    kind="x",
    command=("do", "--out", "out"),
    changes=(("out/notes.txt", ("file",)), ("out/weights", ("bytes", b"mine")), ("out/mine.png", ("file",))),
)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(what, materials, monkeypatch):
    does, said = WRONG[what]
    monkeypatch.setattr("mixln.cli.main", lambda arguments: does())
    began = time.monotonic()
    assert said in complaint(CASE, materials)[1]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("what", RIGHT)
def test_what_is_right_is_not(what, materials, monkeypatch):
    does, outcome = RIGHT[what]
    monkeypatch.setattr("mixln.cli.main", lambda arguments: does())
    assert complaint(CASE, materials) == (outcome, "")


def test_what_became_of_the_inputs_is_counted(materials, monkeypatch):
    ends = {"a": refuse, "b": lambda: 1 // 0, "c": lambda: 0}
    monkeypatch.setattr("mixln.cli.main", lambda arguments: ends[arguments[0]]())
    told: list[str] = []
    found = examine([Case(kind="x", command=(name, "--out", "out")) for name in "aabc"], materials, tell=told.append)
    assert found.counts == {"refused": 2, "ended with 1": 1, "ran to its end": 1}
    assert found.wrong == told
    assert str(found).endswith("1 ended with 1, 1 ran to its end, 2 refused, 1 wrong")
    assert told[0].startswith("#2 x: mixln ['b', '--out', 'out']")


def test_variables_and_the_umask_reach_the_command(materials, monkeypatch):
    monkeypatch.setattr(
        "mixln.cli.main", lambda arguments: put("out/new", f"{os.environ['X']} {os.environ.get('TMPDIR')}")
    )
    case = Case(kind="x", command=CASE.command, environment=(("X", "1"), ("TMPDIR", None)), umask=0o077)
    assert complaint(case, materials) == ("ran to its end", "")
    monkeypatch.setattr("mixln.cli.main", lambda arguments: put("out/new") or os.chmod("out/new", 0o644) or 0)
    assert "out/new has the permissions 644 at umask 077" in complaint(case, materials)[1]


@pytest.mark.long
def test_the_inputs_are_always_the_same_ones_and_all_different():
    assert sum(kind.slow for kind in KINDS.values()) > 1000
    for name, kind in KINDS.items():
        cases = [repr(case) for case in inputs_of(name, kind.slow)]
        assert len(cases) == len(set(cases)) == kind.slow
        assert cases[:5] == [repr(case) for case in inputs_of(name, 5)]


def test_every_option_that_takes_a_number_gets_one_of_400_digits():
    huge = {(case.command[0], word) for case in inputs_of("numbers", KINDS["numbers"].slow) for word in case.command}
    for name, base in BASES.items():
        for option in OPTIONS[name]:
            if option.number:
                assert (base.words[0], f"--{option.name}={'9' * 400}") in huge
