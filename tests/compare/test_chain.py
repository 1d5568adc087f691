"""A small comparison through fine-tuning, evaluation and reinforcement learning; and its statistics by hand."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from mixln.compare.chain import KEPT, Clock
from mixln.compare.chain_settings import ChainSettings, Learning
from mixln.compare.chain_statistics import summarise_chain
from mixln.compare.experiment import compare
from mixln.compare.results import AVERAGE, Chain, ChainResult, Summary
from mixln.data.settings import ExampleSettings
from mixln.errors import SettingsError, StoreError
from mixln.evaluation.results import Metric, Score, Scores
from mixln.evaluation.settings import TaskSettings
from mixln.records import from_json, to_json
from mixln.report import markdown_table, write
from mixln.report.chain_tables import chain_markdown, chain_section
from mixln.runs.outcome import Figure, Tuned, hacked
from mixln.runs.trials import Trial
from mixln.training.settings import RlhfSettings, TuneSettings
from tests.compare.recorder import Recorder
from tests.compare.records import results, rows
from tests.diagnostics import zoo
from tests.training.tuned import ROWS

pytestmark = pytest.mark.filterwarnings("default")  # lm-eval's and TRL's own
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
        finetune=Learning(chosen=chosen, tuning=TuneSettings(**TUNING, learning_rate=1e-3)),
        evaluate=TaskSettings(tasks=("small_choice",), task_folder=folder),
        reward=Learning(chosen=chosen, tuning=TuneSettings(**TUNING, learning_rate=1e-3)),
        rlhf=RlhfSettings(**TUNING, generations=2, new_tokens=4),
    )


@pytest.fixture(scope="module")
def done(settings_for, chain, tmp_path_factory) -> tuple[Path, Summary, Recorder]:
    out, display = tmp_path_factory.mktemp("done") / "out", Recorder()
    return out, compare(settings_for(out, after=chain), display), display


def test_every_trial_has_gone_through_all_steps(done, chain):
    out, summary, display = done
    assert chain.chain == ("finetune", "evaluate", "rlhf")
    found = summary.chain
    assert [(r.trial.placement, r.trial.seed, r.status, r.reason) for r in found.results] == [
        (placement, seed, "finished", "") for seed in (0, 1) for placement in ("pre", "mix(0.5)")
    ]
    for result in found.results:
        assert 12 <= result.finetuned.examples <= len(ROWS) - 6
        assert result.scores.scores[0].questions == 8
        assert result.scores.scores[0].metrics[0].values == ()  # they lie in the trial's folder
        assert result.rlhf.before["kl"].value == 0
        assert result.judge == f"pre_lr0.02_seed{result.trial.seed}"
    ends = [text for text in display.said if re.match(r"chain: trial \d of 4: ", text)]
    assert [re.search(r"trial \d of 4", text)[0] for text in ends] == [
        f"trial {number} of 4" for number in (1, 2, 3, 4)
    ]
    assert any(re.fullmatch(r"chain: trial \d of 4: pre, lr 0.02, seed 0: done, .* left", text) for text in ends)
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
    with pytest.raises(StoreError, match=r"holds another chain: finetune steps there 4, here 5; choose another --out"):
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
    assert "After the pre-training: finetune, evaluate, rlhf" in page
    assert "final reward" in page
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


# --- statistics, by hand ---------------------------------------------------------------------------------------------


def tuned(**after: float) -> Tuned:
    return Tuned(
        status="finished",
        reason="",
        step=1,
        examples=1,
        held_out=1,
        removed=0,
        too_long=0,
        before={name: Figure(value=1.0) for name in after},
        after={name: Figure(value=value) for name, value in after.items()},
        curves={},
        gradient_norms=(),
        seconds=0.0,
    )


def ended(placement: str, seed: int, accuracies: dict[str, float], **after: float) -> ChainResult:
    scores = tuple(
        Score(
            task=task,
            version="1",
            shots=0,
            questions=10,
            cut=0,
            metrics=(Metric(name="acc", value=value, stderr=0.1, higher_is_better=True, chance=0.25),),
        )
        for task, value in accuracies.items()
    )
    trial = Trial(placement=placement, init="normal", learning_rate=1e-3, seed=seed)
    return ChainResult(trial=trial, scores=Scores(model="", facts={}, scores=scores), rlhf=tuned(**after))


def test_means_and_paired_differences_over_seeds():
    asked = ChainSettings(chain=("evaluate", "rlhf"), evaluate=TaskSettings(tasks=("a", "b")))
    pre = [{"a": 0.2, "b": 0.4}, {"a": 0.3, "b": 0.3}, {"a": 0.25, "b": 0.45}]
    post = [{"a": 0.3, "b": 0.5}, {"a": 0.5, "b": 0.4}, {"a": 0.35, "b": 0.45}]
    every = [ended("pre", seed, values, reward=2.0, accuracy=0.9) for seed, values in enumerate(pre)]
    every += [ended("post", seed, values, reward=3.0 + seed, accuracy=0.9) for seed, values in enumerate(post)]
    placements = rows(results("pre", [1.0, 1.0, 1.0]) + results("post", [1.0, 1.0, 1.0]))
    found = summarise_chain(every, placements, asked, baseline="pre", settings={})
    first, second = found.rows
    assert first.figures["a"].value == pytest.approx(0.25)
    assert first.figures[AVERAGE].difference is None
    differences = [0.1, 0.15, 0.05]
    average = second.figures[AVERAGE]
    assert average.difference.mean == pytest.approx(0.1)
    reach = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    assert average.difference.high == pytest.approx(sum(differences) / 3 + reach)
    assert second.figures["rlhf reward"].difference.mean == pytest.approx(2.0)
    assert found.chance == {"a": 0.25, "b": 0.25, AVERAGE: 0.25}
    said = " ".join(found.notes)
    assert (
        "Title of post against Title of pre, mean accuracy of the tasks: +10 points [-2.42, +22.4]".replace("-", "−")
        in said
    )
    assert "a sign that the reward model was learnt" in said  # reward 1 → 2, accuracy 1 → 0.9


def test_what_did_not_get_to_the_end_is_said_and_left_out():
    asked = ChainSettings(chain=("evaluate",), evaluate=TaskSettings(tasks=("a",)))
    lost = replace(ended("post", 1, {}), scores=None, rlhf=None, status="stopped", reason="the pre-training diverged")
    every = [ended("pre", seed, {"a": 0.5}) for seed in (0, 1)] + [ended("post", 0, {"a": 0.6}), lost]
    placements = rows(results("pre", [1.0, 1.0]) + results("post", [1.0, None]))
    found = summarise_chain(every, placements, asked, baseline="pre", settings={})
    assert found.rows[1].figures["a"].seeds == 1
    assert found.rows[1].figures["a"].difference.low is None
    assert "post, learning rate 0.001, seed 1: the pre-training diverged." in found.notes
    assert any("no interval, no claim" in note for note in found.notes)


def test_what_says_nothing_is_said():
    """Models that guess, that answer always the same, judges that toss coins, and trials that had stalled before."""
    asked = ChainSettings(chain=("evaluate", "rlhf"), evaluate=TaskSettings(tasks=("a", "b")))
    judge = replace(tuned(), after={"accuracy": Figure(value=0.52, error=0.03)})
    every = [
        replace(ended("pre", seed, {"a": 0.2, "b": 0.2 + seed / 100}, reward=2.0), reward=judge, judge="pre")
        for seed in (0, 1)
    ]
    every += [
        replace(ended("post", seed, {"a": 0.8 + seed / 100, "b": 0.9}, reward=2.0), reward=judge) for seed in (0, 1)
    ]
    placements = rows(results("pre", [1.0, 1.0]) + results("post", [1.0, 1.0]))
    stalled = [every[1].trial]
    said = "\n".join(summarise_chain(every, placements, asked, baseline="pre", settings={}, stalled=stalled).notes)
    assert "The mean accuracy of Title of pre is not above guessing (25.0%)" in said
    assert "All seeds of Title of pre (a), Title of post (b) have the same accuracy" in said
    assert "judge of seed 0 (52.0 ± 3.0% right), seed 1 (52.0 ± 3.0% right) tells" in said
    assert "taken through the steps all the same: pre, lr 0.001, seed 1." in said


def test_seeds_that_agree_give_no_interval():
    """0.1 + 0.1 + 0.1 is not 3 · 0.1: equal seeds must not come to an interval of rounding errors."""
    asked = ChainSettings(chain=("evaluate",), evaluate=TaskSettings(tasks=("a",)))
    every = [ended("pre", seed, {"a": 0.1}) for seed in (0, 1, 2)] + [ended("post", s, {"a": 0.42}) for s in (0, 1, 2)]
    placements = rows(results("pre", [1.0, 1.0, 1.0]) + results("post", [1.0, 1.0, 1.0]))
    said = "\n".join(summarise_chain(every, placements, asked, baseline="pre", settings={}).notes)
    assert "All seeds of Title of pre (a), Title of post (a) have the same accuracy" in said
    assert "+32 points (the same at every seed: no interval, no claim)" in said


def test_a_seed_that_diverged_has_no_part_in_the_reward_before():
    asked = ChainSettings(chain=("rlhf",))
    lost = replace(tuned(), before={"reward": Figure(value=1.0), "accuracy": Figure(value=1.0)})
    every = [ended("pre", 0, {}, reward=0.5, accuracy=0.9), replace(ended("pre", 1, {}), rlhf=lost)]
    found = summarise_chain(every, rows(results("pre", [1.0, 1.0])), asked, baseline="pre", settings={})
    assert found.rows[0].figures["rlhf reward before"].seeds == 1
    assert not any("reward model was learnt" in note for note in found.notes)


def test_the_time_left_goes_by_rounds_of_the_workers(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mixln.compare.chain.time.monotonic", lambda: now[0])
    clock = Clock(print, trials=6, workers=2)
    now[0] = 600.0
    assert clock.left(5) == clock.left(4) == ", about 20 min 00 s left"
    now[0] = 1200.0
    assert clock.left(3) == ", about 10 min 00 s left"
    assert clock.left(1) == clock.left(0) == ""


def test_a_change_within_its_error_is_no_sign_of_hacking():
    noisy = replace(
        tuned(),
        before={"reward": Figure(value=0.0, error=0.1), "accuracy": Figure(value=0.50, error=0.03)},
        after={"reward": Figure(value=1.0, error=0.1), "accuracy": Figure(value=0.45, error=0.03)},
    )
    assert not hacked(noisy)
    assert hacked(replace(noisy, after={**noisy.after, "accuracy": Figure(value=0.40, error=0.03)}))
    assert not hacked(replace(noisy, after={"reward": Figure(value=0.2, error=0.1), "accuracy": Figure(value=0.1)}))
