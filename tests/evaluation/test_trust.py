"""Task files of other people run no code unless they are trusted: what they would write is not there afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from mixln.cli import main
from mixln.compare.chain import settings_of
from mixln.compare.chain_settings import ChainSettings
from mixln.diagnostics.settings import MeasureSettings
from mixln.errors import SettingsError
from mixln.evaluation import offline
from mixln.evaluation.harness import Harness
from mixln.evaluation.settings import TaskSettings
from tests import decoders
from tests.diagnostics import zoo

pytestmark = pytest.mark.filterwarnings("default")  # lm-eval's own
ROWS = [{"question": "one two three", "choices": ["four", "nine"], "gold": 0}] * 2


@pytest.fixture
def folder(tmp_path) -> Path:
    """The task `small_choice`, beside a module that leaves a trace when it is imported or called."""
    made = tmp_path / "tasks"
    made.mkdir()
    zoo.write_task(made, ROWS)
    (made / "evil.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'a').close()\ndef f(*a, **k): return 'x'\n")
    return made


def change(folder: Path, **entries: object) -> None:
    """Puts entries into the task's file; a text that begins with a `!` keeps its tag."""
    path = folder / "small.yaml"
    own = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name not in entries}
    tagged = {name: value for name, value in entries.items() if str(value).startswith("!")}
    plain = {name: value for name, value in entries.items() if name not in tagged}
    path.write_text(yaml.safe_dump(own | plain) + "".join(f"{name}: {value}\n" for name, value in tagged.items()))


def write(trace: Path) -> str:
    """A template that makes a file."""
    return "{{ cycler.__init__.__globals__.os.system('touch " + str(trace) + "') }}"


EVIL = {
    "a function": {"doc_to_text": "!function evil.f"},
    "a class": {"class": "!function evil.f"},
    "documents": {"process_docs": "!function evil.f"},
    "a data set": {"custom_dataset": "!function evil.f"},
    "a tag of Python": {"custom_dataset": "!!python/name:os.system"},
    "an object of Python": {"doc_to_text": "!!python/object/apply:os.system ['touch trace']"},
    "a metric": {"metric_list": [{"metric": "./evil"}]},
    "a metric of evaluate": {"metric_list": [{"metric": "acc", "hf_evaluate": True}]},
    "a metric in a group": {"group": "g", "task": [{"task": "small_choice", "metric_list": [{"metric": "evil.py"}]}]},
    "prompts": {"use_prompt": "promptsource:*"},
    "a catalogue": {"dataset_path": "iceberg"},
}


@pytest.mark.parametrize("entries", EVIL.values(), ids=EVIL.keys())
def test_a_file_that_runs_code_is_refused_before_it_is_loaded(folder, tmp_path, monkeypatch, entries):
    monkeypatch.chdir(folder)
    change(folder, **entries)
    with pytest.raises(SettingsError, match=r"task-folder: .*small\.yaml has .*--trust-task-code"):
        Harness(["small_choice"], cache=tmp_path, folder=folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("place", ["inside", "outside", "two steps", "absolute"])
def test_what_is_included_is_looked_at_too(folder, tmp_path, place):
    evil = "doc_to_text: !function evil.f\n"
    target = folder / "base.txt" if place in ("inside", "two steps") else tmp_path / "base.txt"
    target.write_text(evil)
    (folder / "between.txt").write_text("include: base.txt\n")
    named = {"inside": "base.txt", "outside": "../base.txt", "two steps": "between.txt", "absolute": str(target)}[place]
    change(folder, include=[named] if place == "inside" else named)
    with pytest.raises(
        SettingsError, match=r"task-folder.*base\.txt (has !function in line 1|is read, but is outside)"
    ):
        Harness(["small_choice"], cache=tmp_path, folder=folder)
    assert not (tmp_path / "trace").exists()


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "small.yaml").rename(tmp_path / "small.yaml")
    (folder / "small.yaml").symlink_to(tmp_path / "small.yaml")
    with pytest.raises(SettingsError, match="is outside this folder"):
        Harness(["small_choice"], cache=tmp_path, folder=folder)


def test_a_pipe_is_not_waited_for(folder, tmp_path):
    os.mkfifo(folder / "more.yaml")
    with pytest.raises(SettingsError, match=r"more\.yaml is not a file"):
        Harness(["small_choice"], cache=tmp_path, folder=folder)


def test_included_files_of_lm_eval_itself_are_taken(folder, tmp_path):
    (folder / "again.yaml").write_text(f"include: {offline.definitions() / 'arc' / 'arc_easy.yaml'}\ntask: again\n")
    assert Harness(["small_choice"], cache=tmp_path, folder=folder).loaded


@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_target", "doc_to_choice"])
def test_a_template_cannot_reach_python(folder, tmp_path, field):
    change(folder, **{field: write(tmp_path / "trace")})
    with pytest.raises(SettingsError, match=r"a template accesses Python internals: .*--trust-task-code"):
        Harness(["small_choice"], cache=tmp_path, folder=folder).digest("small_choice")
    assert not (tmp_path / "trace").exists()


def test_a_template_cannot_reach_python_while_questions_are_asked(folder, tmp_path):
    """By the second row alone, which is not looked at before."""
    rows = [*ROWS, {"question": "late", "choices": ["four", "nine"], "gold": 0}]
    zoo.write_task(folder, rows)
    change(
        folder,
        doc_to_text="{% if question == 'late' %}" + write(tmp_path / "trace") + "{% else %}{{question}}{% endif %}",
    )
    harness = Harness(["small_choice"], cache=tmp_path, folder=folder)
    model = AutoModelForCausalLM.from_pretrained(decoders.save(tmp_path / "model", "pre")).eval()
    with pytest.raises(SettingsError, match="a template accesses Python internals"):
        harness.score("small_choice", model, decoders.tokenizer(), batch_size=2)
    assert not (tmp_path / "trace").exists()


def test_a_trusted_folder_runs_its_code(folder, tmp_path):
    change(folder, doc_to_text="!function evil.f")
    assert Harness(["small_choice"], cache=tmp_path, folder=folder, trusted=True).loaded
    assert (tmp_path / "trace").exists()


def test_the_sandbox_ends(folder, tmp_path):
    from lm_eval import utils

    before = utils.env
    harness = Harness(["small_choice"], cache=tmp_path, folder=folder)
    harness.digest("small_choice")
    assert utils.env is before


@pytest.mark.parametrize("command", ["evaluate", "diagnose"])
def test_the_commands_refuse_and_write_nothing(folder, tmp_path, capsys, command):
    change(folder, doc_to_text="!function evil.f")
    model, out = decoders.save(tmp_path / "model", "pre"), tmp_path / "out"
    line = [command, str(model), "--tasks", "small_choice", "--task-folder", str(folder), "--out", str(out)]
    assert main([*line, "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert "has !function in line" in said
    assert said.count("\n") == 1
    assert not out.exists()
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", [TaskSettings, MeasureSettings])
def test_trust_is_for_a_folder(kind):
    with pytest.raises(SettingsError, match="trust-task-code applies to the files of --task-folder"):
        kind(trust_task_code=True)


def test_trust_changes_no_request_that_is_kept():
    def asked(**changes):
        return settings_of(ChainSettings(chain=("evaluate",), evaluate=TaskSettings(task_folder=Path("x"), **changes)))

    assert asked() == asked(trust_task_code=True)
