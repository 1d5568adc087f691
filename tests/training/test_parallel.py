"""Processes that train one model together end with the numbers of one alone, whatever each holds of it and wherever it was cut off.

One start of torchrun does all trainings that the tests compare: it takes longer than they do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixln import from_pretrained
from mixln.errors import CheckpointError, SettingsError
from mixln.hosts.sources import find_model
from mixln.runs.checkpoints import sealed
from mixln.runs.metrics import read_metrics
from mixln.training.settings import OptimizerSettings
from mixln.training.sharding import OPTIMIZER
from mixln.training.trainers import per_process
from tests.training import together

pytestmark = pytest.mark.long

TRAINING = {"steps": 50, "evaluations": 5, "learning_rate": 3e-3, "batch_size": 8}
EXPERTS = {
    "model_type": "olmoe", "intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "eos_token_id": None,
    "router_aux_loss_coef": 0.0,
}  # fmt: skip
WAYS = {
    "whole": {},
    "frugal": {"placement": "hybrid*", "seed": 3, "micro_batch_size": 2, "activation_checkpointing": True},
    "tied": {"model": {"tie_word_embeddings": True}},
    "experts": {"model": EXPERTS},
    "admin": {"placement": "admin"},
}
"""What is compared; the balance of experts is a mean over parts of the batch, and other parts have another."""
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "embd_pdrop": together.MARKED}
STOP = 20


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory) -> Path:
    """Every way in one process, and one training that is cut off."""
    folder = tmp_path_factory.mktemp("alone")
    for name, changes in WAYS.items():
        together.train(text, str(folder / name), **TRAINING, **changes)
    return folder


@pytest.fixture(scope="module")
def pair(text, tmp_path_factory) -> Path:
    """The same in two processes, with DDP and with FSDP2, and trainings that are cut off here or were cut off in one process."""
    folder = tmp_path_factory.mktemp("pair")
    trainings = [
        {"folder": str(folder / f"{name}-{parallel}"), "parallel": parallel, **TRAINING, **changes}
        for name, changes in WAYS.items()
        for parallel in ("ddp", "fsdp")
    ]
    for parallel in ("ddp", "fsdp"):
        begun = {"folder": str(folder / f"from-one-{parallel}"), **TRAINING}
        together.train(text, stop=STOP, **begun)
        trainings.append({"parallel": parallel, **begun})
        for name in ("to-one", "to-other"):
            started = {"folder": str(folder / f"{name}-{parallel}"), "parallel": parallel, "stop": STOP, **TRAINING}
            trainings.append(started)
        other = {"ddp": "fsdp", "fsdp": "ddp"}[parallel]
        trainings.append({**trainings[-1], "parallel": other, "stop": 0})
        halved = {
            "folder": str(folder / f"halved-{parallel}"),
            "parallel": parallel,
            **TRAINING,
            "precision": "bfloat16",
        }
        trainings.append(halved)
        for stop in (0, STOP):
            dropout = {
                "folder": str(folder / f"dropout-{parallel}-{stop}"),
                "parallel": parallel,
                **TRAINING,
                "model": GPT2,
            }
            trainings += [{**dropout, "stop": stop}, dropout] if stop else [dropout]
    work = folder / "work.json"
    work.write_text(json.dumps({"text": str(text.folder), "trainings": trainings}))
    run_pair(["-m", "tests.training.together", str(work)])
    return folder


def run_pair(arguments: list[str]) -> str:
    """Two processes of torchrun; returns what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def curve(folder: Path) -> list[tuple[int, str, float]]:
    """Every loss, gradient norm and variance of a training."""
    return [
        (row["step"], name, value)
        for row in read_metrics(folder / "metrics.jsonl")
        for name, found in row.items()
        if name not in ("step", "tokens_per_second")
        for value in (chain(*found.values()) if isinstance(found, dict) else [found])
    ]


def assert_same(one: Path, two: Path, steps: int = TRAINING["steps"]) -> None:
    """Float32 rounding apart, which the order of a sum changes and 50 updates add up."""
    here, there = curve(one), curve(two)
    assert [entry[:2] for entry in here] == [entry[:2] for entry in there]
    assert [entry[2] for entry in there] == pytest.approx([entry[2] for entry in here], rel=2e-5)
    weights, others = (load_file(folder / f"checkpoint-{steps}" / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_equal_one(alone, pair, way, parallel):
    assert_same(alone / way, pair / f"{way}-{parallel}")


@pytest.mark.parametrize("way", WAYS)
def test_start_on_the_meta_device_has_the_same_weights(alone, pair, way):
    """What the first forward pass finds, to the bit; each process holds a share only."""
    here, there = (
        [entry for entry in curve(folder) if entry[0] == 0] for folder in (alone / way, pair / f"{way}-fsdp")
    )
    assert here == there
    assert here


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_begun_by_one_process_and_ended_by_two(alone, pair, parallel):
    assert_same(alone / "whole", pair / f"from-one-{parallel}")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_begun_by_two_processes_and_ended_by_one(alone, pair, text, parallel):
    folder = pair / f"to-one-{parallel}"
    ((step, checkpoint),) = sealed(folder)
    assert step == STOP
    pieces = len(list(checkpoint.glob("*.safetensors"))), len(list((checkpoint / OPTIMIZER).glob("*.safetensors")))
    assert pieces == {"ddp": (1, 2), "fsdp": (2, 2)}[parallel]
    together.train(text, str(folder), **TRAINING)
    assert_same(alone / "whole", folder)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_begun_with_one_and_ended_with_the_other(alone, pair, parallel):
    assert_same(alone / "whole", pair / f"to-other-{parallel}")


def test_bfloat16_rounds_alike_whatever_each_process_holds(alone, pair):
    """FSDP2 gathers bfloat16 weights where autocast would make them."""
    halved = {parallel: curve(pair / f"halved-{parallel}") for parallel in ("ddp", "fsdp")}
    figures = {name: [entry[2] for entry in found] for name, found in halved.items()}
    assert figures["fsdp"] == pytest.approx(figures["ddp"], rel=1e-2)  # bfloat16 has 8 bits
    assert figures["ddp"] != pytest.approx([entry[2] for entry in curve(alone / "whole")], rel=2e-5)


def test_bfloat16_rounds_what_autocast_rounds_and_nothing_else():
    """Not the gains of norms inside attention (HybridNorm*; Qwen3, OLMo 2) and feed-forward, nor experts: to the bit."""
    run_pair(
        [
            "-m",
            "tests.training.spread",
            "llama:hybrid*",
            "llama:sub-ln",
            "llama:dlcl",
            "llama:mhc",
            "llama:attnres",
            "llama:denseformer",
            "qwen3:pre",
            "olmo2:pre",
            "qwen3_moe:pre",
        ]
    )


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_each_process_drops_its_own_features_and_goes_on_with_them(pair, parallel):
    whole, cut = (pair / f"dropout-{parallel}-{stop}" for stop in (0, STOP))
    masks = [json.loads((whole / f"masks_{rank}.json").read_text()) for rank in (0, 1)]
    assert len(masks[0]) == len(masks[1]) == TRAINING["steps"]
    assert all(one != two for one, two in zip(*masks, strict=True))
    assert [json.loads((cut / f"masks_{rank}.json").read_text()) for rank in (0, 1)] == [mask[STOP:] for mask in masks]
    assert curve(cut) == curve(whole)


def test_activation_checkpointing_changes_no_number(alone, text, tmp_path):
    plain = {name: value for name, value in WAYS["frugal"].items() if name != "activation_checkpointing"}
    together.train(text, str(tmp_path), **TRAINING, **plain)
    assert curve(tmp_path) == curve(alone / "frugal")


def test_model_of_two_processes_loads_as_any_other(pair):
    model = from_pretrained(pair / "whole-fsdp" / "checkpoint-50")
    assert model.config.architectures == ["PlacedLlamaForCausalLM"]


def test_share_of_each_process_is_no_model(pair, tmp_path):
    checkpoint = pair / f"dropout-fsdp-{STOP}" / f"checkpoint-{STOP}"
    for load in (from_pretrained, lambda path: find_model(str(path), cache=tmp_path)):
        with pytest.raises(CheckpointError, match="is saved in 2 shards, one per process"):
            load(checkpoint)
    assert from_pretrained(pair / f"dropout-ddp-{STOP}" / f"checkpoint-{STOP}")


def test_no_checkpoint_holds_a_pickle_of_settings(pair):
    assert not list(pair.rglob("training_args.bin"))


def test_batch_is_shared_out_evenly():
    assert per_process(OptimizerSettings(batch_size=8), 2) == 4
    assert per_process(OptimizerSettings(batch_size=8, micro_batch_size=2), 4) == 2
    with pytest.raises(
        SettingsError, match=r"batch-size must be a multiple of 6 \(3 processes with 2 sequences per pass\), got 8"
    ):
        per_process(OptimizerSettings(batch_size=8), 3)
