"""Files of version 1 keep their values in the form of today, and lose their sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixln.compare.former import chain_result
from mixln.compare.results import ChainResult, Interruption
from mixln.compare.store import EXPERIMENT_RUN
from mixln.diagnostics.results import DIAGNOSES
from mixln.evaluation.results import EVALUATION
from mixln.records import from_json
from mixln.runs.provenance import Hardware, ModelFacts
from mixln.runs.schema import Schema
from mixln.search.former import search
from mixln.search.results import SEARCH, STRESS, Search, Termination

STORED = Path(__file__).parents[1] / "stored"


def stored(name: str) -> Any:
    return json.loads((STORED / name).read_text("utf-8"))


@pytest.mark.parametrize(
    ("reason", "interruption"),
    [
        ("", None),
        (
            "finetune diverged at step 3: the training loss is not finite",
            Interruption(
                kind="divergence", step="finetune", optimizer_step=3, reason="the training loss is not finite"
            ),
        ),
        (
            "rlhf: the baseline has no reward model at this seed, which would judge all placements",
            Interruption(kind="no-reward-model", step="rlhf"),
        ),
        ("OSError: no room", Interruption(kind="error", reason="OSError: no room")),
    ],
)
def test_why_a_chain_was_interrupted(reason: str, interruption: Interruption | None) -> None:
    kept = {**stored("chain.json")["result"], "reason": reason}
    found = from_json(ChainResult, chain_result(kept))
    assert found.interruption == interruption
    assert found.finetuned is not None
    assert found.finetuned.step == kept["finetuned"]["step"]
    assert found.scores is not None
    assert found.scores.scores[0].metrics[0].value == kept["scores"]["scores"][0]["metrics"][0]["value"]
    assert from_json(ChainResult, chain_result({**kept, "scores": None})).scores is None


def test_a_diagnosis() -> None:
    (former,), (found,) = stored("diagnosis.json")["models"], DIAGNOSES.read(STORED / "diagnosis.json").models
    facts = former["facts"]
    assert found.subject == ModelFacts(
        source=facts["source"],
        family=facts["family"],
        placement=facts.get("placement"),
        parameters=int(facts["parameters"].replace(",", "")),
        precision=facts["number format"],
    )
    assert found.drops is not None
    assert [drop.change for drop in found.drops.skipped] == [drop["change"] for drop in former["drops"]["skipped"]]
    assert DIAGNOSES.read(STORED / "diagnosis.json").provenance.versions["mixln"] == "0.1.0"


def test_the_task_of_a_drop() -> None:
    data = stored("diagnosis.json")
    (model,) = data["models"]
    model["tasks"] = [{**model["drops"], "measure": "acc of arc_easy", "better": "higher"}]
    (found,) = from_json(DIAGNOSES.record, DIAGNOSES.upgrades[0](data)).models
    assert [(drops.measure, drops.task) for drops in found.tasks] == [("acc", "arc_easy")]


def test_an_evaluation() -> None:
    former, found = stored("evaluation.json"), EVALUATION.read(STORED / "evaluation.json")
    assert [model.model for model in found.models] == [model["model"] for model in former["models"]]
    assert found.provenance.versions["mixln"] == "0.1.0"


@pytest.mark.parametrize(("schema", "name"), [(STRESS, "stress.json"), (SEARCH, "tune.json")])
def test_a_stress_test_and_a_search(schema: Schema[Any], name: str) -> None:
    assert schema.read(STORED / name).provenance.versions["mixln"] == "0.1.0"


def test_how_the_trainings_of_a_search_ended() -> None:
    data = stored("tune.json")
    data["finalists"][0]["ended"] = ["finished", "diverged: the training loss is not finite"]
    data["chosen"] = data["finalists"][0]
    found = from_json(Search, search(data))
    assert found.finalists[0].ended == (
        Termination(status="finished"),
        Termination(status="diverged", reason="the training loss is not finite"),
    )
    assert found.chosen == found.finalists[0]


def test_the_hardware_of_an_experiment() -> None:
    data = {**stored("experiment-language.json"), "machine": "2 processor cores; 2 trials side by side, 1 threads each"}
    data.pop("schema", None)
    found = from_json(EXPERIMENT_RUN.request.record, EXPERIMENT_RUN.request.upgrades[0](data))
    assert found.hardware == (Hardware(cores=2, trials=2, threads=1),)
