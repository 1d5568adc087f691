"""The models of a comparison: a trial, one of its checkpoints, or an experiment's best trials."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mixln.compare.settings import CompareSettings
from mixln.compare.sources import find
from mixln.compare.store import Store
from mixln.data.settings import TextSettings
from mixln.data.windows import text_windows
from mixln.errors import CheckpointError, StoreError
from mixln.hosts.sources import load, tokenizer_of
from mixln.runs.checkpoints import seal
from mixln.runs.trials import Trial, TrialResult
from tests import small
from tests.compare.records import result
from tests.runs.jobs import write_result
from tests.tiny import placed

UNUSED = Path("unused")


def experiment(folder: Path, placements: tuple[str, ...] = ("pre", "mix(0.5)"), **text: Any) -> Store:
    """An experiment without trials."""
    store = Store(folder)
    settings = CompareSettings(placements=placements, out=folder, text=TextSettings(**text))
    store.create({"settings": settings.shared(), "grid": settings.grid(), "baseline": placements[0]})
    return store


def add(store: Store, trial: TrialResult, *, checkpoint: bool = True) -> Path:
    """A trial that has ended as `trial` says."""
    folder = store.add(trial.trial)
    write_result(folder, trial)
    if checkpoint:
        placed(trial.trial.placement).save_pretrained(folder / f"checkpoint-{trial.step}")
    return folder


def message(name: Path | str) -> str:
    with pytest.raises(StoreError) as caught:
        find(str(name), cache=UNUSED)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_experiment_stands_for_one_trial_a_placement(tmp_path, news):
    store = experiment(tmp_path / "run", ("pre", "mix(0.5)", "post"))
    for each in (
        result("pre", 3.0, rate=1e-3, seed=1),
        result("pre", 2.8, rate=1e-3, seed=2),
        result("pre", 2.0, rate=1e-2, seed=1),  # the lowest loss, but of a survivor
        result("pre", None, rate=1e-2, seed=2),
        result("mix(0.5)", 2.9, rate=1e-3, seed=1),
        result("mix(0.5)", 2.5, rate=1e-2, seed=2),
        result("mix(0.5)", 2.7, rate=1e-2, seed=3),
        result("mix(0.5)", 4.9, rate=1e-2, seed=0, status="stalled"),
        result("mix(0.5)", 4.9, rate=1e-3, seed=0, status="stalled"),
        result("post", None, seed=0),
    ):
        add(store, each, checkpoint=each.loss is not None)
    store.add(result("post", 1.0, seed=1).trial)  # has not ended
    found = find(str(tmp_path / "run"), cache=UNUSED)
    assert [source.title for source in found] == ["pre, seed 1", "mix(0.5), seed 2"]
    assert [Path(source.path).parent.name for source in found] == ["pre_lr0.001_seed1", "mix-0.5_lr0.01_seed2"]
    assert {source.name for source in found} == {str(tmp_path / "run")}
    assert news.messages == [
        f"{tmp_path / 'run'}: post has no finished trial and is skipped",
        f"{tmp_path / 'run'}: the seeds of the placements differ; each is the lowest that trained: pre 1, mix(0.5) 2",
    ]


def test_trial_and_its_checkpoint_know_the_text_of_the_experiment(tmp_path):
    store = experiment(tmp_path / "run", data="sotu", sequence_length=64, held_out=0.1)
    folder = add(store, result("mix(0.5)", 3.0, seed=4))
    for name in (folder, folder / "checkpoint-10"):
        (source,) = find(str(name), cache=UNUSED)
        assert (source.title, source.task) == ("mix(0.5), seed 4", "causal-lm")
        assert source.trial is not None
        assert TextSettings(**source.trial) == TextSettings(sequence_length=64, held_out=0.1)
        assert source.trial_tokens == 300 * 8 * 64
    shutil.copytree(folder, tmp_path / "elsewhere" / "kept")
    (source,) = find(str(tmp_path / "elsewhere" / "kept"), cache=UNUSED)
    assert (source.title, source.trial, source.trial_tokens) == ("mix(0.5), seed 4", None, None)


def test_unfinished_trial_gives_its_latest_complete_checkpoint(tmp_path):
    store = experiment(tmp_path / "run")
    folder = store.add(Trial(placement="post", init="normal", learning_rate=1e-3, seed=0))
    for step, complete in ((5, True), (20, True), (30, False)):
        placed("post").save_pretrained(folder / f"checkpoint-{step}")
        if complete:
            seal(folder / f"checkpoint-{step}")
    (source,) = find(str(folder), cache=UNUSED)
    assert (source.title, Path(source.path).name) == ("post, seed 0, step 20", "checkpoint-20")


def test_trial_without_a_checkpoint(tmp_path):
    store = experiment(tmp_path / "run")
    assert "has no finished trial; finish its mixln compare first" in message(store.folder)
    waiting = store.add(result("pre", 1.0).trial)
    said = message(waiting)
    assert f"trial {waiting} has not finished and has no complete checkpoint; finish its mixln compare first" in said
    diverged = replace(result("post", None), reason="the training loss is not finite")
    said = message(add(store, diverged, checkpoint=False))
    assert "diverged and has no checkpoint: the training loss is not finite; choose another trial" in said
    gone = add(store, result("pre", 3.0, seed=7), checkpoint=False)
    assert "has finished, but its checkpoint-10 is missing; choose another trial" in message(gone)
    (gone / "result.json").write_text("{")
    assert "result.json is corrupt (" in message(gone)
    assert "delete its folder and run its mixln compare again" in message(gone)


def test_damaged_experiment(tmp_path):
    (tmp_path / "experiment.json").write_text("{}")
    assert "experiment.json is corrupt" in message(tmp_path)


def test_other_names_are_models_of_any_kind(tmp_path):
    placed("pre").save_pretrained(tmp_path / "model-x")
    (source,) = find(str(tmp_path / "model-x"), cache=UNUSED)
    assert (source.title, source.trial) == ("model-x", None)
    with pytest.raises(CheckpointError, match="is a folder without config"):
        find(str(tmp_path), cache=UNUSED)


@pytest.mark.parametrize("documents", [40, 1], ids=["documents", "one document"])
def test_held_out_loss_of_a_trained_trial_is_that_of_its_result(documents, tmp_path):
    texts = small.documents() if documents > 1 else [" ".join(small.documents())]
    text = small.prepared(tmp_path, texts=texts)
    store = experiment(tmp_path / "run", data=str(tmp_path / "text"), sequence_length=small.LENGTH, held_out=0.1)
    trial = result("mix(0.5)", 1.0).trial
    folder = store.add(trial)
    outcome = small.train(text, folder, "mix(0.5)")
    write_result(folder, TrialResult(trial=trial, **vars(outcome)))
    (source,) = find(str(folder), cache=UNUSED)
    assert json.loads((folder / "result.json").read_text())["loss"] == outcome.loss
    model = load(source)
    windows = text_windows(
        TextSettings(**source.trial),
        tokenizer_of(source),
        tokens=10**6,
        sequence_length=source.trial["sequence_length"],
        held_out_only=True,
        kind="causal-lm",
        corpus_tokens=source.trial_tokens,
    )
    assert windows.input_ids.tolist() == [row["input_ids"].tolist() for row in text.held_out]
    assert windows.labels.tolist() == [row["labels"].tolist() for row in text.held_out]
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in windows.batches(8):
            predicted = int((batch["labels"][:, 1:] != -100).sum())
            total, count = total + model(**batch).loss.item() * predicted, count + predicted
    assert total / count == pytest.approx(outcome.loss, abs=1e-5)
