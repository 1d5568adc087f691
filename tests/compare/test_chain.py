"""A small comparison through fine-tuning, evaluation and reinforcement learning."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mixln.compare.chain import KEPT, ChainProgress
from mixln.compare.chain_settings import ChainSettings, ChainStepSettings
from mixln.compare.experiment import compare
from mixln.compare.results import Chain, ChainResult, Summary
from mixln.data.settings import ExampleSettings
from mixln.errors import SettingsError, StoreError
from mixln.evaluation.settings import TaskSettings
from mixln.records import from_json, to_json
from mixln.report.page.chain import chain_section
from mixln.report.tables.chain import chain_markdown
from mixln.report.tables.comparison import markdown_table
from mixln.report.wording import pages
from mixln.report.writing import write
from mixln.runs.outcome import ValueWithError, hacked
from mixln.training.settings import PostTrainingSettings, RlhfSettings
from tests.compare.chains import tuned
from tests.compare.recorder import Recorder
from tests.diagnostics import zoo
from tests.training.tuned import ROWS

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # lm-eval's and TRL's own
]
TUNING = {"precision": "float32", "steps": 4, "batch_size": 4, "evaluations": 1}


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> ChainSettings:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "rows.jsonl").unlink(missing_ok=True)
    zoo.write_task(folder, [{"question": row["prompt"], "choices": ["one", "two"], "gold": 0} for row in ROWS[:8]])
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    chosen = ExampleSettings(data=str(folder / "examples.jsonl"), held_out_examples=6)
    return ChainSettings(
        chain=("finetune,evaluate", "rlhf"),
        finetune=ChainStepSettings(chosen=chosen, tuning=PostTrainingSettings(**TUNING, learning_rate=1e-3)),
        evaluate=TaskSettings(tasks=("small_choice",), task_folder=folder),
        reward=ChainStepSettings(chosen=chosen, tuning=PostTrainingSettings(**TUNING, learning_rate=1e-3)),
        rlhf=RlhfSettings(**TUNING, generations=2, new_tokens=4),
    )


@pytest.fixture(scope="module")
def done(settings_for, chain, tmp_path_factory) -> tuple[Path, Summary, Recorder]:
    out, display = tmp_path_factory.mktemp("done") / "out", Recorder()
    with display.listening():
        return out, compare(settings_for(out, after=chain), display), display


def test_every_trial_has_gone_through_all_steps(done, chain):
    out, summary, display = done
    assert chain.chain == ("finetune", "evaluate", "rlhf")
    found = summary.chain
    assert [(r.trial.placement, r.trial.seed, r.status, r.interruption) for r in found.results] == [
        (placement, seed, "finished", None) for seed in (0, 1) for placement in ("pre", "mix(0.5)")
    ]
    for result in found.results:
        assert 12 <= result.finetuned.examples <= len(ROWS) - 6
        assert result.scores.scores[0].questions == 8
        assert result.scores.scores[0].metrics[0].values == ()  # they lie in the trial's folder
        assert result.rlhf.before["kl"].value == 0
        assert result.judge == f"pre_lr0.02_seed{result.trial.seed}"
    ends = [text for text in display.logged if re.match(r"chain: trial \d of 4: ", text)]
    assert [re.search(r"trial \d of 4", text)[0] for text in ends] == [
        f"trial {number} of 4" for number in (1, 2, 3, 4)
    ]
    assert any(re.fullmatch(r"chain: trial \d of 4: pre, lr 0.02, seed 0: finished, .* left", text) for text in ends)
    assert {path.parent.name for path in out.glob(f"*/{KEPT.file}")} == {
        path.parent.name for path in out.glob("*/trial.json")
    }
    assert from_json(Chain, to_json(found)) == found


def test_the_same_again_does_nothing(done, settings_for, chain):
    out, summary, _ = done
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*/tuning-result.json")}
    assert len(times) == 4 * 3
    again = compare(settings_for(out, after=chain), Recorder())
    assert again.chain == summary.chain
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/tuning-result.json")} == times


def test_what_is_missing_is_done_and_ends_the_same(done, settings_for, chain, tmp_path):
    """A chain that was cut off after a fine-tuning; the rest is done from there."""
    out, summary, _ = done
    shutil.copytree(out, tmp_path / "out")
    folder = tmp_path / "out/mix-0.5_lr0.02_seed1"
    (folder / KEPT.file).unlink()
    shutil.rmtree(folder / "rlhf")
    tuned = (folder / "finetune/tuning-result.json").stat().st_mtime_ns
    again = compare(settings_for(tmp_path / "out", after=chain), Recorder())

    for one, other in zip(again.chain.results, summary.chain.results, strict=True):
        for name in ("finetuned", "scores", "reward", "rlhf", "judge"):
            assert getattr(timeless(one), name) == getattr(timeless(other), name), name
    assert (folder / "finetune/tuning-result.json").stat().st_mtime_ns == tuned


def timeless(result: ChainResult) -> ChainResult:
    same = {name: replace(getattr(result, name), seconds=0.0) for name in ("finetuned", "reward", "rlhf")}
    return replace(result, **same)


def test_another_chain_is_refused_before_anything_is_trained(done, settings_for, chain):
    out, _, _ = done
    other = replace(chain, finetune=replace(chain.finetune, tuning=replace(chain.finetune.tuning, steps=5)))
    with pytest.raises(StoreError, match=r"holds another chain: finetune steps was 4, now 5; choose another --out"):
        compare(settings_for(out, after=other), Recorder())


def test_steps_can_be_added(done, settings_for, chain, tmp_path):
    out, _, _ = done
    shutil.copytree(out, tmp_path / "out")
    fewer = compare(settings_for(tmp_path / "out", after=replace(chain, chain=("finetune",))), Recorder()).chain
    assert fewer.steps == ("finetune",)
    assert [result.scores for result in fewer.results] == [None] * 4


def test_the_report_shows_it(done, tmp_path):
    _, summary, _ = done
    paths = write(summary, tmp_path)
    page = next(path for path in paths if path.suffix == ".html").read_text()
    assert pages.chain(("finetune", "evaluate", "rlhf")) in page
    assert chain_section(summary) in page
    assert chain_markdown(summary) in (tmp_path / "table.md").read_text()
    assert chain_section(replace(summary, chain=None)) == ""
    assert chain_markdown(replace(summary, chain=None)) == ""
    assert (tmp_path / "table.md").read_text().startswith(markdown_table(summary))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            ("finetune,evaluat",),
            "chain 'evaluat' is not known; did you mean evaluate\\? known: finetune, evaluate, rlhf",
        ),
        (("rlhf", "rlhf"), "chain must not repeat, got rlhf twice"),
    ],
)
def test_mistakes(steps, words):
    with pytest.raises(SettingsError, match=words):
        ChainSettings(chain=steps)


# --- the time left, and reward hacking ------------------------------------------------------------------------------


def test_the_time_left_goes_by_rounds_of_the_workers(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mixln.compare.chain.time.monotonic", lambda: now[0])
    clock = ChainProgress(trials=6, workers=2)
    now[0] = 600.0
    assert clock.left(5) == clock.left(4) == ", about 20 min 00 s left"
    now[0] = 1200.0
    assert clock.left(3) == ", about 10 min 00 s left"
    assert clock.left(1) == clock.left(0) == ""


def test_a_change_within_its_error_is_no_sign_of_hacking():
    noisy = replace(
        tuned(),
        before={"reward": ValueWithError(value=0.0, error=0.1), "accuracy": ValueWithError(value=0.50, error=0.03)},
        after={"reward": ValueWithError(value=1.0, error=0.1), "accuracy": ValueWithError(value=0.45, error=0.03)},
    )
    assert not hacked(noisy)
    assert hacked(replace(noisy, after={**noisy.after, "accuracy": ValueWithError(value=0.40, error=0.03)}))
    assert not hacked(
        replace(noisy, after={"reward": ValueWithError(value=0.2, error=0.1), "accuracy": ValueWithError(value=0.1)})
    )
