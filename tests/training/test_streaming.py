"""A training on a stream sees the same sequences with one process or two, with workers or without, and goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixln.data.preparation import prepare
from mixln.data.settings import TextSettings
from mixln.data.text import Text
from mixln.runs.checkpoints import sealed
from mixln.runs.metrics import read_metrics
from tests import small
from tests.training import together
from tests.training.test_parallel import assert_same, run_pair

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes"),  # on two cores
]
TRAINING = {"steps": 40, "evaluations": 4, "learning_rate": 3e-3, "batch_size": 4}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Text:
    folder = tmp_path_factory.mktemp("stream")
    (folder / "data").mkdir()
    for file in range(4):
        rows = [json.dumps({"text": text}) for text in small.documents(60, seed=file)]
        (folder / "data" / f"{file}.jsonl").write_text("\n".join(rows))
    settings = TextSettings(data=str(folder / "data"), sequence_length=16, held_out=0.1, streaming=True)
    return prepare(settings, vocabulary_size=300, tokens=3000, cache=folder / "cache")


def numbers(folder: Path) -> list[dict]:
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


def test_its_facts(text):
    assert text.info.words.endswith("files); streamed and 24 held-out documents")
    assert text.info.train_tokens == 0 < text.info.held_out_tokens
    assert 1 < text.info.unigram_loss < 6


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory) -> Path:
    """The training that nothing interrupts, in one process without workers."""
    folder = tmp_path_factory.mktemp("whole")
    together.train(text, str(folder), **TRAINING)
    return folder


@pytest.mark.parametrize("stop", [20, 21])
@pytest.mark.parametrize(("workers", "then"), [(0, 0), (2, 2), (3, 3), (2, 0), (0, 3)])
def test_resumed_equals_uninterrupted_whatever_the_workers(text, whole, tmp_path, stop, workers, then):
    together.train(text, str(tmp_path), stop=stop, data_workers=workers, **TRAINING)
    ((step, _),) = sealed(tmp_path)
    assert step == stop
    together.train(text, str(tmp_path), data_workers=then, **TRAINING)
    assert numbers(tmp_path) == numbers(whole)


@pytest.mark.parametrize(
    "more",
    [
        {"micro_batch_size": 2, "placement": "admin"},
        {"model": {"attention_dropout": 0.2}, "data_workers": 2},
    ],
    ids=["admin", "dropout"],
)
def test_resumed_equals_uninterrupted_with(text, tmp_path, more):
    together.train(text, str(tmp_path / "whole"), **TRAINING, **more)
    together.train(text, str(tmp_path / "cut"), stop=21, **TRAINING, **more)
    together.train(text, str(tmp_path / "cut"), **TRAINING, **more)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_two_processes_see_what_one_does_and_either_goes_on_where_the_other_was(text, whole, tmp_path):
    folders = {name: str(tmp_path / name) for name in ("pair", "to-one", "from-one")}
    together.train(text, folders["from-one"], stop=21, **TRAINING)
    trainings = [
        {"folder": folders["pair"], "data_workers": 2, **TRAINING},
        {"folder": folders["to-one"], "stop": 21, **TRAINING},
        {"folder": folders["from-one"], **TRAINING},
    ]
    work = tmp_path / "work.json"
    work.write_text(json.dumps({"text": str(text.folder), "trainings": trainings}))
    run_pair(["-m", "tests.training.together", str(work)])
    together.train(text, folders["to-one"], **TRAINING)
    for name in folders:
        assert_same(whole, tmp_path / name, TRAINING["steps"])
