"""The run store: what may lie in a folder, what must not, and how trials are named and marked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mixln.compare.store import EXPERIMENT, Store
from mixln.errors import StoreError
from mixln.placement import placement
from mixln.records import to_json
from mixln.runs.folder import LOCK
from mixln.runs.trials import RESULT, TRIAL, Trial, read_trial
from tests.compare.records import result
from tests.runs.jobs import write_result

SHARED = {"model": "tiny", "text": {"data": "sotu", "sequence_length": 128}, "training": {"steps": 300, "warmup": 0.1}}
GRID = {"placements": ["pre", "post"], "learning_rates": [1e-3], "seeds": [0, 1]}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs" / "first")


@pytest.fixture
def used(store) -> Store:
    """A store that holds an experiment."""
    store.create({"settings": SHARED, "grid": GRID, "text": {"fingerprint": "abc"}})
    return store


def refusal(store: Store, shared=SHARED, grid=GRID, *, extend: bool = False) -> str:
    with pytest.raises(StoreError) as caught:
        store.check({"settings": shared}, grid, extend=extend)
    assert "\n" not in str(caught.value)
    assert str(store.folder) in str(caught.value)
    return str(caught.value)


def test_a_folder_that_does_not_exist_is_free_and_stays_so(store):
    assert store.read() is None
    assert store.check({"settings": SHARED}, GRID, extend=False) == GRID
    assert not store.folder.parent.exists()


@pytest.mark.parametrize("names", [[], [LOCK]])
def test_an_empty_folder_is_free(store, names):
    store.folder.mkdir(parents=True)
    for name in names:
        (store.folder / name).touch()
    assert store.check({"settings": SHARED}, GRID, extend=False) == GRID


@pytest.mark.parametrize("extend", [True, False])
def test_the_same_settings_go_on(used, extend):
    assert used.check({"settings": SHARED}, GRID, extend=extend) == GRID


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "9m"}, "model was tiny, now 9m"),
        ({"text": {"data": "sotu", "sequence_length": 64}}, "sequence-length was 128, now 64"),
        ({"training": {"steps": 400, "warmup": 0.2}}, "steps was 300, now 400"),
        ({"training": {"steps": 300, "warmup": 0.2}}, "warmup was 0.1, now 0.2"),
        ({"init": "small"}, "init was None, now small"),
    ],
)
@pytest.mark.parametrize("extend", [True, False])
def test_another_setting_is_refused_and_named(used, change, said, extend):
    found = refusal(used, {**SHARED, **change}, extend=extend)
    assert f"holds another experiment: {said}; choose another --out, or the same settings" in found


GROWN = [
    ({"placements": ["pre", "post", "lns"]}, "placements was ['pre', 'post'], now ['pre', 'post', 'lns']"),
    ({"learning_rates": [1e-3, 1e-2]}, "learning-rates was [0.001], now [0.001, 0.01]"),
    ({"seeds": [0, 1, 2]}, "seeds was [0, 1], now [0, 1, 2]"),
]


@pytest.mark.parametrize(("change", "said"), GROWN, ids=[said for _, said in GROWN])
def test_a_grown_grid_needs_extend(used, change, said):
    found = refusal(used, grid={**GRID, **change})
    assert found.endswith(f"{said}; choose another --out, or add --extend to add to it")
    assert used.check({"settings": SHARED}, {**GRID, **change}, extend=True) == {**GRID, **change}


def test_extending_keeps_what_was_there(used):
    asked = {"placements": ["lns", "post"], "learning_rates": [1e-2], "seeds": [2]}
    assert used.check({"settings": SHARED}, asked, extend=True) == {
        "placements": ["pre", "post", "lns"],
        "learning_rates": [1e-3, 1e-2],
        "seeds": [0, 1, 2],
    }


@pytest.mark.parametrize("content", ["notes.txt", EXPERIMENT.upper(), ".hidden"])
def test_a_foreign_folder_is_refused(store, content):
    store.folder.mkdir(parents=True)
    (store.folder / content).write_text("mine")
    assert "is not empty and holds no experiment; choose another --out" in refusal(store)


def test_a_file_is_refused(store):
    store.folder.parent.mkdir()
    store.folder.write_text("mine")
    assert "is not empty and holds no experiment" in refusal(store)


@pytest.mark.parametrize("content", [b'{"settings": ', b"", b"\xff\xfe"])
def test_a_damaged_experiment_is_refused(used, content):
    (used.folder / EXPERIMENT).write_bytes(content)
    assert "is corrupt" in refusal(used)


@pytest.mark.parametrize("content", ["{}", "[]", "3", "null"])
def test_an_experiment_that_lacks_its_entries_is_refused(used, content):
    (used.folder / EXPERIMENT).write_text(content)
    assert "is corrupt" in refusal(used)


TRIAL_A = Trial(placement="mix(0.25)", init="normal", learning_rate=1e-3, seed=1)


def test_a_trial_has_its_own_folder_that_says_what_it_is(used):
    folder = used.add(TRIAL_A)
    assert folder == used.folder / "mix-0.25_lr0.001_seed1"
    assert read_trial(folder) == TRIAL_A
    written = (folder / TRIAL).stat().st_mtime_ns
    assert used.add(TRIAL_A) == folder
    assert (folder / TRIAL).stat().st_mtime_ns == written


def test_only_a_result_marks_a_trial_as_ended(used):
    folder = used.add(TRIAL_A)
    (folder / "metrics.jsonl").write_text('{"step": 10, "eval_loss": 3.0}\n')
    assert used.result(TRIAL_A) is None
    ended = replace(result("mix(0.25)", 3.0), trial=TRIAL_A)
    write_result(folder, ended)
    assert used.result(TRIAL_A) == ended


@pytest.mark.parametrize(
    "content", ['{"trial": ', "", "[]", "{}", "null", '{"trial": null}', '{"trial": {"placement": "pre"}}']
)
def test_a_damaged_result_is_refused(used, content):
    path = used.add(TRIAL_A) / RESULT
    path.write_text(content)
    with pytest.raises(StoreError, match=r"is corrupt .*; delete it to run this trial again") as caught:
        used.result(TRIAL_A)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [EXPERIMENT, TRIAL, RESULT])
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"median": 1}, "median is unknown to this version of mixln; known: "),
        ({"schema": "{kind}/3"}, "schema is {kind}/3, newer than {kind}/2 of this version of mixln"),
    ],
)
def test_a_file_of_a_newer_version_is_no_corrupt_one(used, name, entry, words):
    folder = used.add(TRIAL_A)
    write_result(folder, replace(result("mix(0.25)", 3.0), trial=TRIAL_A))
    path = used.folder / EXPERIMENT if name == EXPERIMENT else folder / name
    entries = json.loads(path.read_text())
    kind = entries["schema"].removesuffix("/2")
    changed = {key: value.format(kind=kind) if isinstance(value, str) else value for key, value in entry.items()}
    path.write_text(json.dumps({**entries, **changed}))
    with pytest.raises(StoreError) as caught:
        used.read() if name == EXPERIMENT else used.result(TRIAL_A)
    said = str(caught.value)
    assert said.startswith(f"{path}: {words.format(kind=kind)}")
    assert said.endswith("; update mixln")
    assert "\n" not in said


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"init": "small"}, {"learning_rate": 2e-3}, {"placement": "pre"}], ids=str
)
def test_the_result_of_another_trial_is_refused(used, change):
    other = replace(result("pre", 3.0), trial=replace(TRIAL_A, **change))
    write_result(used.add(TRIAL_A), other)
    with pytest.raises(StoreError, match="belongs to another trial; delete it to run this one"):
        used.result(TRIAL_A)


def test_a_result_is_replaced_as_a_whole(used):
    folder = used.add(TRIAL_A)
    ended = replace(result("mix(0.25)", 3.0), trial=TRIAL_A)
    write_result(folder, ended)
    write_result(folder, replace(ended, loss=2.0))
    written = json.loads((folder / RESULT).read_text())
    assert written == {"schema": "trial-result/2", **to_json(replace(ended, loss=2.0))}
    assert sorted(path.name for path in folder.iterdir()) == [RESULT, TRIAL]


def test_a_long_mixture_has_a_folder_too(used):
    text = ",".join(["qkvnorm+sandwich*1", "qkvnorm+res-post*1"] * 8)
    placement(text, 16)
    assert used.add(replace(TRIAL_A, placement=text)).is_dir()
