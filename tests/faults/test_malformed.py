"""Inputs of every kind through the real command: each ends with one clear line or runs to its end, and loses nobody's files.

The inputs are always the same ones. Each runs in a process of its own with limits of time and memory, see :mod:`tests.faults.fuzz`; in the
slow tests nothing of the command is replaced. `just fuzz` runs those and prints what became of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.fuzz import runner
from tests.faults.fuzz.case import Case
from tests.faults.fuzz.commands import DIAGNOSIS, ONE
from tests.faults.fuzz.inputs import BOTH, NEW, TRIAL, taken
from tests.faults.fuzz.judge import complaint, examine
from tests.faults.fuzz.kinds import KINDS, inputs_of
from tests.faults.fuzz.materials import make

pytestmark = pytest.mark.slow

FAST = tuple({name: None for kind in KINDS.values() if kind.fast for name in kind.needs})
"""All that the kinds of the fast tests need."""
Materials = Callable[[tuple[str, ...]], Path]


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    """Gives a folder with the materials that a kind needs, and perhaps more; each is made once."""
    runner.preload()
    made: dict[tuple[str, ...], Path] = {}

    def folder(needs: tuple[str, ...]) -> Path:
        for there, place in made.items():
            if set(needs) <= set(there):
                return place
        made[needs] = tmp_path_factory.mktemp("materials")
        make(made[needs], needs, runner.in_child)
        return made[needs]

    return folder


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.fast])
def test_an_input_is_one_clear_line_or_runs_to_its_end(kind, materials, record_property):
    """A few of each kind; comparisons train in the same process."""
    found = examine(inputs_of(kind, KINDS[kind].fast), materials(FAST), quick=True)
    record_property("fuzzed", f"{kind}: {found}")
    assert not found.wrong, "\n\n".join(found.wrong)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_inputs_are_one_clear_line_each_or_run_to_their_end(kind, materials, record_property):
    found = examine(inputs_of(kind, KINDS[kind].slow), materials(KINDS[kind].needs))
    record_property("fuzzed", f"{kind}: {found}")
    assert not found.wrong, "\n\n".join(found.wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(kind="settings", command=(*ONE, *NEW, "--steps", "a\nb"), fresh=True),
        Case(
            kind="data",
            command=(*DIAGNOSIS, *NEW, "--data", "data.jsonl"),
            changes=(("data.jsonl", ("bytes", b"[" * 100_000)),),
            fresh=True,
        ),
        Case(
            kind="models",
            command=taken("prune", "placed"),
            changes=(("placed/model.safetensors", ("cut", 0.5)),),
            fresh=True,
        ),
        Case(
            kind="models",
            command=taken("diagnose", "stock"),
            changes=(("stock/model.safetensors", ("pickle", 0)),),
            fresh=True,
        ),
        Case(kind="stores", command=BOTH["compare"], changes=(("store/experiment.json", ("cut", 0.7)),), fresh=True),
        Case(
            kind="stores", command=BOTH["diagnose"], changes=((f"{TRIAL}result.json", ("bytes", b"null")),), fresh=True
        ),
    ],
    ids=lambda case: f"{case.kind}-{case.command[0]}",
)
def test_the_same_holds_of_the_command_in_a_new_interpreter(case, materials):
    assert complaint(case, materials(("store",))) == ("refused", "")
