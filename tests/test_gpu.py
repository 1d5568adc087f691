"""What runs on a GPU: skipped without one. `pytest tests/test_gpu.py` where there is one; on a node with pytest and little else,
`PYTHONPATH=src pytest -o addopts= tests/test_gpu.py`.

MIXLN_TEST_DEVICE=cpu runs these tests on a processor, to try the tests themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mixln.nn import loss as loss_module
from mixln.nn.loss import without_logits
from mixln.training.compiling import compile_layers
from tests import tiny

DEVICE = os.environ.get("MIXLN_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("default"),  # of torch's compiler and of the kernels' own
]


def on_device(placement: str, **changes: Any) -> Any:
    return tiny.placed(placement, **changes).to(DEVICE)


def low() -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16)


def relative(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Distance of two sets of gradients, as a share of the second's norm."""
    apart = sum((one[name].cpu() - other[name].cpu()).double().pow(2).sum() for name in other)
    return float((apart / sum(each.cpu().double().pow(2).sum() for each in other.values())).sqrt())


@pytest.mark.parametrize("placement", tiny.EVERY)
def test_float32_gives_the_numbers_of_a_processor(placement):
    ids = tiny.tokens()
    expected = tiny.placed(placement)
    model = on_device(placement)
    torch.testing.assert_close(
        tiny.logits(model, ids.to(DEVICE)).cpu(), tiny.logits(expected, ids), rtol=1e-3, atol=1e-3
    )
    assert relative(tiny.gradients(model, ids.to(DEVICE)), tiny.gradients(expected, ids)) < 0.02


@pytest.mark.parametrize("placement", tiny.EVERY)
def test_bfloat16_trains(placement):
    """The loss under autocast is that of float32 to the rounding, every gradient is finite, and a step lowers the loss."""
    ids = tiny.tokens(batch=4, length=12).to(DEVICE)
    model = on_device(placement).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    exact = model(input_ids=ids, labels=ids).loss.item()
    with low():
        loss = model(input_ids=ids, labels=ids).loss
    assert loss.item() == pytest.approx(exact, rel=0.05)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    optimizer.step()
    assert model(input_ids=ids, labels=ids).loss.item() < exact


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*", "mhc", "siamese", "ngpt", "prores+pre"])
def test_compiled_layers_are_the_layers_as_written(placement):
    ids = tiny.tokens(batch=4, length=12).to(DEVICE)
    model = on_device(placement)
    with low():
        written = tiny.logits(model, ids, use_cache=False)
        assert compile_layers(model, "on", device=DEVICE, steps=10_000, sharded=False)
        compiled = tiny.logits(model, ids, use_cache=False)
    # Compiled code rounds to bfloat16 less often.
    assert (compiled - written).norm() < 0.05 * written.norm()


def test_the_loss_in_chunks_is_the_whole_loss(monkeypatch):
    monkeypatch.setattr(loss_module, "ROWS", 7)
    ids = tiny.tokens(batch=5, length=11).to(DEVICE)
    model = on_device("hybrid*")
    whole = model(input_ids=ids, labels=ids).loss.item(), tiny.gradients(model, ids)
    with without_logits(model) as able:
        assert able
        parts = model(input_ids=ids, labels=ids).loss.item(), tiny.gradients(model, ids)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert relative(parts[1], whole[1]) < 1e-4


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*", "mhc", "attnres(3)", "ngpt"])
def test_generation_with_a_cache_equals_generation_without(placement):
    ids = tiny.tokens().to(DEVICE)
    model = on_device(placement)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


SHARDED = """
import json, sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from mixln.training.sharding import shard
from tests import tiny

device, how = sys.argv[1:]
distributed.init_process_group("nccl" if device == "cuda" else "gloo", rank=0, world_size=1, init_method="tcp://127.0.0.1:" + "{port}")
model = tiny.placed("mix(0.5)").to(device)
ids = tiny.tokens(batch=4, length=12).to(device)
if how == "ddp":
    model = DistributedDataParallel(model)
elif how == "fsdp":
    shard(model, torch.device(device), bfloat16=False, mesh=init_device_mesh(device, (1,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for _ in range(4):
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(json.dumps(losses))
distributed.destroy_process_group()
"""


def test_a_model_trains_alike_alone_under_ddp_and_under_fsdp():
    """On one device, where nothing is shared out: the wrapping itself changes nothing."""
    import socket

    found = {}
    for how in ("alone", "ddp", "fsdp"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", SHARDED.replace("{port}", str(port)), DEVICE, how]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found[how] = json.loads(done.stdout.splitlines()[-1])
    assert found["ddp"] == pytest.approx(found["alone"], rel=1e-4)
    assert found["fsdp"] == pytest.approx(found["alone"], rel=1e-4)
    assert found["alone"][-1] < found["alone"][0]


def test_a_training_that_is_stopped_resumes(tmp_path, monkeypatch):
    """With its stream of data, on the GPU: the same losses as without the stop, to the rounding of kernels that add in any order."""
    pytest.importorskip("datasets")
    from mixln.errors import Stopped
    from mixln.training.callbacks import Checkpoints
    from tests import small
    from tests.training.together import StoppedAt

    text = small.prepared(tmp_path)
    usual = {"placement": "mix(0.5)", "steps": 12, "checkpoint_seconds": 0.0}
    whole = small.train(text, tmp_path / "whole", **usual)
    monkeypatch.setattr(StoppedAt, "step", 6)
    monkeypatch.setattr("mixln.training.run.Checkpoints", StoppedAt)
    with pytest.raises(Stopped):
        small.train(text, tmp_path / "cut", **usual)
    monkeypatch.setattr("mixln.training.run.Checkpoints", Checkpoints)
    resumed = small.train(text, tmp_path / "cut", **usual)
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-3)
    assert resumed.step == whole.step == 12


def test_a_small_comparison_from_the_command_to_the_report(tmp_path):
    pytest.importorskip("tyro")
    from mixln.cli import main
    from tests import small

    small.write_folder(tmp_path / "text", small.documents())
    small.write_config(tmp_path / "config.json")
    command = [
        "compare", "--placements", "pre", "hybrid*", "--seeds", "0", "1", "--steps", "8", "--evaluations", "2", "--batch-size", "4",
        "--model", str(tmp_path / "config.json"), "--data", str(tmp_path / "text"), "--held-out", "0.2", "--sequence-length", "16",
        "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    assert main(command) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    # Eight steps are too few to be better than unigrams, which is what "finished" would say.
    assert [trial["step"] for trial in found["trials"]] == [8] * 4
    assert not [trial for trial in found["trials"] if trial["status"] in ("failed", "diverged")]
    assert (tmp_path / "out" / "report.html").exists()
