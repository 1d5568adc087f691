"""A whole small comparison: two placements, two seeds, in a worker process."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mixln
from mixln.compare.experiment import compare
from mixln.compare.preparation import _duplicates
from mixln.compare.results import DuplicatePlacement, Summary, TrialLength
from mixln.compare.statistics import paired_difference
from mixln.compare.store import EXPERIMENT
from mixln.errors import StoreError
from mixln.placement import placement
from mixln.placement.zoo import title
from mixln.records import to_json
from mixln.runs.trials import RESULT, TRIAL_RUN
from tests import small
from tests.compare.recorder import Recorder

TRIALS = ["pre_lr0.02_seed0", "mix-0.5_lr0.02_seed0", "pre_lr0.02_seed1", "mix-0.5_lr0.02_seed1"]


@pytest.fixture(scope="module")
def done(settings_for, tmp_path_factory) -> tuple[Path, Summary, Recorder]:
    """The folder, the summary and the display of the comparison, run once; no test changes the folder."""
    out, display = tmp_path_factory.mktemp("done") / "out", Recorder()
    with display.listening():
        return out, compare(settings_for(out), display), display


def result_times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob(f"*/{RESULT}")}


def numbers(summary: Summary) -> list[dict]:
    """Everything that the trials found, without what the clock says."""
    rows = [to_json(result) for result in summary.trials]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second", "first_step_seconds")}
        for row in rows
    ]


def test_every_trial_finished_in_its_place(done):
    out, summary, _ = done
    assert [result.status for result in summary.trials] == ["finished"] * 4
    assert [(r.trial.placement, r.trial.seed) for r in summary.trials] == [
        ("pre", 0),
        ("mix(0.5)", 0),
        ("pre", 1),
        ("mix(0.5)", 1),
    ]
    assert sorted(result_times(out)) == sorted(TRIALS)


def test_each_trial_is_the_training_that_it_names(done, tmp_path):
    """The worker's numbers are those of the same training in this process."""
    _, summary, _ = done
    text = small.prepared(tmp_path)
    own = small.train(text, tmp_path / "run", "mix(0.5)", seed=1, learning_rate=2e-2, steps=40, evaluations=2)
    worker = summary.trials[3]
    assert worker.loss == own.loss
    assert worker.train_curve == own.train_curve


def test_the_models_of_a_trial_can_be_loaded(done):
    out, summary, _ = done
    model = mixln.from_pretrained(out / TRIALS[1] / "checkpoint-40")
    assert model.config.placement["name"] == "mix(0.5)"
    assert sum(parameter.numel() for parameter in model.parameters()) == summary.parameters


def test_results_on_the_disk_are_those_of_the_summary(done):
    out, summary, _ = done
    for name, result in zip(TRIALS, summary.trials, strict=True):
        assert TRIAL_RUN.result.read(out / name / RESULT) == result


def test_the_summary_is_the_statistics_of_its_trials(done):
    _, summary, _ = done
    pre, mix = summary.placements
    losses = {(r.trial.placement, r.trial.seed): r.loss for r in summary.trials}
    assert pre.best.loss == pytest.approx((losses["pre", 0] + losses["pre", 1]) / 2)
    assert (summary.baseline, pre.title, mix.title) == ("pre", "Pre-LN", "Mix-LN")
    of = {name: {seed: losses[name, seed] for seed in (0, 1)} for name in ("pre", "mix(0.5)")}
    assert mix.best.difference == paired_difference(of["mix(0.5)"], of["pre"])
    assert mix.best.perplexity == math.exp(mix.best.loss)
    json.dumps(to_json(summary), allow_nan=False)


def test_experiment_json_says_what_is_needed_to_run_it_again(done, settings_for):
    out, _, _ = done
    found = json.loads((out / EXPERIMENT).read_text())
    settings = settings_for(out)
    assert found["settings"] == settings.shared()
    assert found["grid"] == settings.grid()
    assert found["versions"]["torch"] == torch.__version__
    assert {"mixln", "transformers", "python"} <= set(found["versions"])
    assert len(found["text"]["fingerprint"]) == 20
    assert "commit" in found


def test_the_display_is_told_the_course(done):
    _, _, display = done
    assert display.begun == [(4, 0, 40)]
    assert len(display.ended) == 4
    assert display.ends == 1
    assert {progress.job.folder.name for progress in display.watched} <= set(TRIALS)
    assert any("training tokens" in line and "held out" in line for line in display.logged)


def test_the_summary_knows_text_model_and_machine(done, settings_for):
    out, summary, _ = done
    assert (summary.text.documents, summary.text.held_out_documents, summary.text.vocabulary_size) == (36, 4, 300)
    assert summary.length == TrialLength(steps=40, amount=40 * 4 * small.LENGTH)
    assert summary.folder == str(out)
    assert summary.provenance.versions["torch"] == torch.__version__
    (hardware,) = summary.provenance.hardware
    assert (hardware.trials, hardware.cores > 0) == (settings_for(out).execution.jobs, True)


def test_the_machine_of_an_experiment_of_an_earlier_version_is_kept(done, settings_for, tmp_path):
    """It was one text for all machines; what is added now comes after it."""
    copy = shutil.copytree(done[0], tmp_path / "out")
    experiment = json.loads((copy / EXPERIMENT).read_text())
    del experiment["hardware"]
    experiment["schema"] = 1
    experiment["machine"] = "4 processor cores; 2 trials side by side, 1 threads each"
    (copy / EXPERIMENT).write_text(json.dumps(experiment))
    (hardware,) = compare(settings_for(copy), Recorder()).provenance.hardware
    assert (hardware.cores, hardware.trials, hardware.threads) == (4, 2, 1)


def test_the_same_command_again_repeats_nothing(done, settings_for):
    out, summary, _ = done
    before, display = result_times(out), Recorder()
    again = compare(settings_for(out), display)
    assert result_times(out) == before
    assert display.begun == display.ended == []
    assert again == summary


def test_another_baseline_repeats_nothing(done, settings_for):
    out, summary, _ = done
    before, display = result_times(out), Recorder()
    again = compare(settings_for(out, baseline="mix(0.5)"), display)
    assert result_times(out) == before
    assert display.begun == []
    mean = summary.placements[1].best.difference.mean
    assert again.placements[0].best.difference.mean == pytest.approx(-mean)
    assert again.placements[1].best.difference is None


def test_a_result_that_is_missing_is_made_again_with_the_same_numbers(done, settings_for, tmp_path):
    out, summary, _ = done
    copy, display = shutil.copytree(out, tmp_path / "out"), Recorder()
    (copy / TRIALS[1] / RESULT).unlink()
    (copy / TRIALS[1] / "checkpoint-7").mkdir()
    before = result_times(copy)
    again = compare(settings_for(copy), display)
    assert display.begun == [(4, 3, 40)]
    assert [result.trial for result in display.ended] == [summary.trials[1].trial]
    after = result_times(copy)
    assert {name: after[name] for name in before} == before
    assert sorted(after) == sorted(TRIALS)
    assert [path.name for path in (copy / TRIALS[1]).glob("checkpoint-*")] == ["checkpoint-40"]
    assert numbers(again) == numbers(summary)


def refused(settings, said: str) -> None:
    """The comparison refuses and leaves its folder as it is."""
    files = {path: path.stat().st_mtime_ns for path in settings.out.rglob("*") if path.name != ".lock"}
    display = Recorder()
    with pytest.raises(StoreError) as caught:
        compare(settings, display)
    assert said in str(caught.value)
    assert display.begun == []
    assert {path: path.stat().st_mtime_ns for path in settings.out.rglob("*") if path.name != ".lock"} == files


def test_a_text_that_has_changed_is_another_experiment(done, settings_for, inputs, tmp_path):
    out, _, _ = done
    shutil.copytree(inputs / "text", tmp_path / "text")
    (tmp_path / "text" / "005.txt").write_text("another text " * 40)
    copy = shutil.copytree(out, tmp_path / "out")
    experiment = json.loads((copy / EXPERIMENT).read_text())
    experiment["settings"]["text"]["data"] = str(tmp_path / "text")
    (copy / EXPERIMENT).write_text(json.dumps(experiment))
    changed = settings_for(copy, text={"data": str(tmp_path / "text")})
    refused(changed, "holds another experiment: the text is different")


def test_a_model_that_has_changed_is_another_experiment(done, settings_for, tmp_path):
    out, _, _ = done
    copy = shutil.copytree(out, tmp_path / "out")
    config = small.write_config(tmp_path / "config.json")
    experiment = json.loads((copy / EXPERIMENT).read_text())
    experiment["settings"]["model"] = str(config)
    (copy / EXPERIMENT).write_text(json.dumps(experiment))
    small.write_config(config, intermediate_size=96)
    refused(replace(settings_for(copy), model=str(config)), "holds another experiment")


def test_a_grown_grid_needs_extend(done, settings_for):
    refused(settings_for(done[0], seeds=(0, 1, 2)), "seeds was [0, 1], now [0, 1, 2]")


def test_what_another_version_adds_is_named(done, settings_for, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(done[0], copy)
    before = json.loads((copy / EXPERIMENT).read_text())["commit"]
    monkeypatch.setattr("mixln.runs.provenance.commit", lambda: "another")
    settings = settings_for(copy, seeds=(0, 1, 2), extend=True)
    for _ in range(2):  # the second time nothing is added
        summary = compare(settings, Recorder())
        assert summary.provenance.commits == tuple(filter(None, [before, "another"]))


def test_other_settings_are_refused(done, settings_for):
    refused(settings_for(done[0], training={"steps": 50}), "steps was 40, now 50")


def test_trials_of_another_experiment_are_refused(done, settings_for, tmp_path):
    """Copied trial folders: the settings agree, but the trials belong to another experiment."""
    copy = shutil.copytree(done[0], tmp_path / "out")
    experiment = json.loads((copy / EXPERIMENT).read_text())
    experiment["settings"]["training"]["steps"] = 50
    (copy / EXPERIMENT).write_text(json.dumps(experiment))
    refused(settings_for(copy, training={"steps": 50}), "belongs to another experiment: steps was 40, now 50")


def test_an_edited_result_is_refused(done, settings_for, tmp_path):
    copy = shutil.copytree(done[0], tmp_path / "out")
    path = copy / TRIALS[1] / RESULT
    path.write_text(path.read_text().replace('"step": 40', '"step": 39'))
    refused(settings_for(copy), "the content of result.json has changed; restore it")
    assert (copy / TRIALS[1] / "checkpoint-40/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pre", "Pre-LN"),
        ("mix(0.25)", "Mix-LN"),
        ("mix", "Mix-LN"),
        ("hybrid*", "HybridNorm*"),
        ("qknorm+pre", "qknorm+pre"),
        ("post*3,pre*9", "post*3,pre*9"),
        ("hybrid**2,pre", "hybrid**2,pre"),
        ("mix(0.25)*3,pre*9", "mix(0.25)*3,pre*9"),
        ("group(4)", "Group-LN"),
        ("group(4)+post", "group(4)+post"),
    ],
)
def test_the_title_is_the_fields_name_and_a_mixture_keeps_its_text(name, words):
    assert title(name) == words


def test_two_names_of_one_placement_are_pointed_out():
    built = {name: placement(name, 12) for name in ("pre", "mix(0.25)", "mix(3)")}
    assert _duplicates(built) == (DuplicatePlacement(first="mix(0.25)", second="mix(3)"),)
