"""Whatever cannot work is refused with one line before anything is written into the folder, and before a worker starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from transformers import CONFIG_MAPPING

from mixln.compare.experiment import compare
from mixln.compare.store import EXPERIMENT, Store
from mixln.compare.tasks import TASKS
from mixln.errors import DataError, MixlnError, PlacementError, SettingsError, StoreError
from mixln.hosts.shrunken import shrunken
from mixln.placement.preflight import PlacementRisk
from mixln.runs.folder import LOCK
from mixln.runs.trials import RESULT, Trial
from tests import small
from tests.compare.recorder import Recorder


def refusal(settings, kind: type[MixlnError]) -> str:
    display = Recorder()
    with pytest.raises(kind) as caught:
        compare(settings, display)
    assert display.begun == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


MISTAKES = [
    ({"placements": ("pre", "prelude")}, PlacementError, "placement 'prelude' is not known; known: pre, post"),
    ({"placements": ("mix(1.5)",)}, PlacementError, "mix: α must lie in [0, 1], got 1.5"),
    ({"placements": ("post*2,pre*2",)}, PlacementError, "its parts have 4 layers, the model has 2"),
    ({"placements": ("group(5)",)}, MixlnError, "groups must divide the normalized size, got 5 groups for 32 features"),
    ({"init": "tiny"}, SettingsError, "init 'tiny' is not known; known: normal, small, megatron, scaled, deepnorm"),
    ({"model": "70b"}, SettingsError, "model '70b' is not known; did you mean 7b? known: tiny, olmoe-tiny, qwen2-tiny"),
    ({"text": {"sequence_length": 65}}, SettingsError, "must hold the sequence length 65, got 64"),
    ({"text": {"vocabulary_size": 302}}, SettingsError, "must hold the tokenizer's 302 tokens, got 300"),
    ({"text": {"data": "/nowhere/text.txt"}}, DataError, "data /nowhere/text.txt does not exist"),
    ({"training": {"batch_size": 1000}}, DataError, "training sequences are fewer than one batch of 1000"),
]


@pytest.mark.parametrize(("changes", "kind", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_a_mistake_leaves_no_folder(settings_for, tmp_path, changes, kind, said):
    out = tmp_path / "runs" / "first"
    assert said in refusal(settings_for(out, **changes), kind)
    assert list(tmp_path.iterdir()) == []


def test_learning_rates_that_are_close_have_folders_of_their_own(tmp_path):
    trials = [Trial(placement="pre", init="normal", learning_rate=rate, seed=0) for rate in (1e-3, 1.0000001e-3)]
    assert len({Store(tmp_path).trial_folder(trial) for trial in trials}) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 30}, "not a multiple of the number of attention heads"),
        ({"model_type": "opt"}, "OPTDecoderLayer does not end in a sum of stream and branch: modeling_opt.py"),
        ({"model_type": "vit"}, "is a 'vit' config, a family without a causal language model"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be an integer from 1 to 1,024, got 0"),
    ],
)
def test_a_model_that_cannot_be_built_leaves_no_folder(settings_for, tmp_path, changes, said):
    config = small.write_config(tmp_path / "config.json", **changes)
    assert said in refusal(settings_for(tmp_path / "out", model=str(config)), SettingsError)
    assert list(tmp_path.iterdir()) == [config]


def test_too_little_text_leaves_no_folder(settings_for, tmp_path):
    data = small.write_folder(tmp_path / "text", ["one two three"])
    said = refusal(settings_for(tmp_path / "out", text={"data": str(data)}), DataError)
    assert "fewer than one sequence of 16" in said
    assert list(tmp_path.iterdir()) == [data]


def test_a_foreign_folder_is_left_as_it_is(settings_for, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty and holds no experiment" in refusal(settings_for(out), StoreError)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_comparison_that_runs_keeps_a_second_one_out(settings_for, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK):
        said = refusal(settings_for(out), StoreError)
    assert said == f"out {out} is in use by another mixln; wait for it, or choose another --out"
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_a_damaged_result_is_refused_before_anything_runs(settings_for, tmp_path):
    settings = settings_for(tmp_path / "out")
    store = Store(settings.out)
    fingerprint = small_fingerprint(settings)
    model = {
        name: value
        for name, value in TASKS[settings.task].config(settings).to_dict().items()
        if name != "transformers_version"
    }
    shared = {"settings": settings.shared(), "text": {"fingerprint": fingerprint}, "model": model}
    store.create({**shared, "grid": settings.grid()})
    path = store.add(Trial(placement="pre", init="normal", learning_rate=2e-2, seed=1)) / RESULT
    path.write_text('{"status": "finished"')
    said = refusal(settings, StoreError)
    assert said.startswith(f"{path} is corrupt (")
    assert said.endswith("; delete it to run this trial again")
    assert sorted(p.name for p in settings.out.iterdir()) == [EXPERIMENT, "pre_lr0.02_seed1"]


def small_fingerprint(settings) -> str:
    from mixln.data.preparation import prepare

    return prepare(settings.text, vocabulary_size=300, tokens=settings.tokens, cache=settings.cache).info.fingerprint


def test_a_damaged_experiment_is_refused(settings_for, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / EXPERIMENT).write_text('{"settings": {')
    assert "experiment.json is corrupt" in refusal(settings_for(out), StoreError)


def test_a_folder_below_a_file_is_refused(settings_for, tmp_path):
    (tmp_path / "file").write_text("mine")
    refusal(settings_for(tmp_path / "file" / "out"), StoreError)


def test_warnings_are_said_before_anything_runs(settings_for, tmp_path):
    """The text is missing, so nothing runs; what is known against the placements has been said by then."""
    display = Recorder()
    settings = settings_for(
        tmp_path / "out", placements=("mix(0.25)", "hybrid*"), init="normal", text={"data": "/nowhere.txt"}
    )
    with pytest.raises(DataError):
        compare(replace(settings, training=replace(settings.training, warmup=0.0)), display)
    assert all(isinstance(warning, PlacementRisk) for warning in display.warned)
    warned = {(warning.kind, warning.placement) for warning in display.warned}
    assert {("no-post-layer", "mix(0.25)"), ("hybrid-init", "hybrid*")} <= warned


def test_sequential_placements_of_a_parallel_family_are_warned_about(settings_for, tmp_path):
    config = shrunken(CONFIG_MAPPING["gpt_neox"], vocab_size=300)
    (tmp_path / "config.json").write_text(config.to_json_string())
    display = Recorder()
    settings = settings_for(
        tmp_path / "out",
        model=str(tmp_path / "config.json"),
        placements=("stock", "pre"),
        text={"data": "/nowhere.txt", "sequence_length": 16},
    )
    with pytest.raises(DataError):
        compare(settings, display)
    assert [(warning.kind, warning.placement) for warning in display.warned] == [("sequential", "pre")]


def test_precision_is_settled_before_it_is_stored(settings_for, tmp_path):
    """`auto` on another machine may be another precision, and that is another experiment."""
    from mixln.training.precision import resolve

    settings = settings_for(tmp_path / "out", training={"precision": "auto"})
    other = "float32" if resolve("auto") == "bfloat16" else "bfloat16"
    shared = replace(settings, training=replace(settings.training, precision=other)).shared()
    Store(settings.out).create({"settings": shared, "grid": settings.grid(), "text": {"fingerprint": "abc"}})
    assert f"precision was {other}, now {resolve('auto')}" in refusal(settings, StoreError)
    assert json.loads((settings.out / EXPERIMENT).read_text())["settings"] == shared
    assert [path for path in Path(settings.out).iterdir() if path.name != EXPERIMENT] == []
