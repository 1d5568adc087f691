"""A training on a stream goes on at the sequence that it had come to, with one process or two, with workers or without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixln.data.settings import TextSettings
from mixln.data.text import Text, prepare
from mixln.errors import SettingsError
from mixln.training.checkpoints import sealed
from mixln.training.metrics import read_metrics
from tests import small
from tests.training import together
from tests.training.test_parallel import run_pair

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


@pytest.mark.parametrize("more", [{}, {"micro_batch_size": 2, "placement": "admin"}, {"data_workers": 2}], ids=str)
def test_resumed_equals_uninterrupted(text, tmp_path, more):
    together.train(text, str(tmp_path / "whole"), **TRAINING, **more)
    together.train(text, str(tmp_path / "cut"), stop=20, **TRAINING, **more)
    ((step, _),) = sealed(tmp_path / "cut")
    assert step == 20
    together.train(text, str(tmp_path / "cut"), **TRAINING, **more)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_resumed_by_two_processes_equals_uninterrupted_and_by_one_is_refused(text, tmp_path):
    folders = {name: str(tmp_path / name) for name in ("whole", "cut", "other")}
    trainings = [
        {"folder": folders["whole"], **TRAINING},
        {"folder": folders["cut"], "stop": 20, **TRAINING},
        {"folder": folders["cut"], **TRAINING},
        {"folder": folders["other"], "stop": 20, **TRAINING},
    ]
    work = tmp_path / "work.json"
    work.write_text(json.dumps({"text": str(text.folder), "trainings": trainings}))
    run_pair(["-m", "tests.training.together", str(work)])
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    with pytest.raises(SettingsError, match="dealt out to 2 processes with --data-workers 0 each, now to 1 with 0"):
        together.train(text, folders["other"], **TRAINING)
