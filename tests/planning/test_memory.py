"""The planned memory: exact where it is arithmetic, equal to what is counted on real tensors, near what a process takes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from mixln.hosts import HOSTS, build
from mixln.nn.loss import without_logits
from mixln.planning.live import IN_FLIGHT
from mixln.planning.memory import fake_model, measure, run_step
from mixln.planning.settings import PlanSettings
from mixln.presets import model_config
from tests.hosts.families import config_of
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "plan_memory.py"
TINY = PlanSettings(model="tiny", batch_size=4, sequence_length=64, precision="float32")


def planned(settings: PlanSettings, **changes):
    settings = dataclasses.replace(settings, **changes)
    return measure(model_config(settings.model, sequence_length=settings.sequence_length), settings)


def count(name: str) -> int:
    with torch.device("meta"):
        return sum(
            parameter.numel() for parameter in build(model_config(name), placement="pre", init=None).parameters()
        )


def test_the_parts_add_up():
    for memory in (planned(TINY), planned(TINY, batch_size=1, sequence_length=2), planned(TINY, devices=2)):
        parts = memory.parts().values()
        assert sum(at_peak for at_peak, _ in parts) == memory.total
        assert all(most >= at_peak for at_peak, most in parts)


def test_weights_gradients_and_moments_are_float32_always():
    for precision in ("float32", "bfloat16"):
        memory = planned(TINY, precision=precision)
        size = 4 * count("tiny")
        assert (memory.weights, memory.gradients, memory.moments, memory.buckets) == (size, size, 2 * size, 0)


def test_where_nothing_else_matters_the_update_is_the_peak():
    memory = planned(TINY, batch_size=1, sequence_length=2)
    assert memory.total == pytest.approx(16 * count("tiny"), rel=1e-4)


def test_ddp_keeps_everything_on_each_device_and_the_gradients_twice():
    alone, several = planned(TINY), planned(TINY, devices=2, batch_size=8)
    assert several.total == alone.total + 4 * count("tiny")


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_fsdp_shares_out_weights_gradients_and_moments(devices):
    memory = planned(TINY, devices=devices, batch_size=4 * devices, parallel="fsdp")
    share = -(-4 * count("tiny") // devices)
    assert (memory.weights, memory.gradients, memory.moments, memory.buckets) == (share, share, 2 * share, 0)
    # At the end of the backward pass: the gradients of embedding and head are whole, that of the head also in the copy in which
    # it travels and as the share that comes back, and the embedding is gathered. What a unit has besides, the final norm, is small.
    head = 4 * 2048 * 96
    assert memory.highest[IN_FLIGHT] == pytest.approx((4 + 1 / devices) * head, rel=0.001)


def test_fsdp_gathers_matrices_in_the_format_of_the_products():
    """With a small vocabulary they are what is in flight; their gradients are summed up in float32."""
    config = tiny_config(hidden_size=128, intermediate_size=256)
    wide, narrow = (
        measure(config, dataclasses.replace(TINY, devices=2, parallel="fsdp", precision=precision)).highest[IN_FLIGHT]
        for precision in ("float32", "bfloat16")
    )
    assert 0.5 * wide < narrow < 0.9 * wide


def test_under_fsdp_gradients_are_shared_out_after_every_micro_batch():
    memory = planned(TINY, devices=2, batch_size=8, micro_batch_size=2, parallel="fsdp")
    assert memory.highest["gradients"] == pytest.approx(4 * count("tiny") / 2, rel=0.001)
    assert memory.step["gradients"] == memory.highest["gradients"]  # those of the micro batches before, all the time


def test_checkpointing_lowers_the_activations():
    without, with_it = planned(TINY), planned(TINY, activation_checkpointing=True)
    assert with_it.highest["activations"] < 0.3 * without.highest["activations"]
    assert with_it.highest["logits and loss"] == without.highest["logits and loss"]


def test_activations_grow_with_the_micro_batch_and_not_with_the_batch():
    one, two = planned(TINY, micro_batch_size=1), planned(TINY, micro_batch_size=2)
    assert two.highest["activations"] == pytest.approx(2 * one.highest["activations"], rel=0.01)
    assert planned(TINY, batch_size=64, micro_batch_size=2) == two


def test_logits_by_hand():
    """In float32, of 512 tokens at a time: states, logits and their logarithms of probabilities; and the loss's gradients at hand."""
    memory = planned(TINY, batch_size=16)
    tokens, width, words = 16 * 64, 96, 2048
    assert memory.highest["logits and loss"] == pytest.approx(
        4 * (512 * (2 * words + width) + (tokens + words) * width), rel=0.01
    )


def test_autocast_keeps_a_copy_of_each_matrix():
    """Two bytes each, of all matrices but the look-up table, until the backward pass is through them."""
    memory = planned(TINY, precision="bfloat16")
    assert memory.highest["weight copies"] == 2 * 12 * (4 * 96 * 96 + 3 * 96 * 256) + 2 * 2048 * 96


CASES = {
    "pre": {},
    "mix": {"placement": "mix(0.25)"},
    "hybrid*": {"placement": "hybrid*"},
    "checkpointing": {"activation_checkpointing": True},
    "accumulation": {"micro_batch_size": 2},
    "bfloat16": {"precision": "bfloat16"},
    "experts": {"model": "olmoe-tiny"},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_tensors_without_data_take_what_real_ones_take(changes):
    settings = dataclasses.replace(TINY, **changes)
    same_on_real_tensors(model_config(settings.model), settings)


@pytest.mark.parametrize("family", [name for name, host in HOSTS.items() if "causal-lm" in host.heads])
@pytest.mark.parametrize(
    "changes", [{}, {"placement": "hybrid*", "precision": "bfloat16", "activation_checkpointing": True}]
)
def test_in_every_family(family, changes):
    """Sliding windows narrower than the sequence, shared and tied weights, experts."""
    same_on_real_tensors(
        config_of(family), PlanSettings(batch_size=4, sequence_length=16, **{"precision": "float32", **changes})
    )


def same_on_real_tensors(config, settings: PlanSettings) -> None:
    real = build(config, placement=settings.placement, init=None).train()
    real.config.use_cache = False
    accumulated = settings.accumulation > 1
    with FakeTensorMode():
        fake = fake_model(config, settings)
        found = run_step(fake, settings, accumulated=accumulated)
    # In bfloat16, torch's rule for tensors without data makes the attention's log-sums half as large as they are.
    tolerance = 0.001 if settings.precision == "float32" else 0.02
    for without_data, with_data in zip(found, run_step(real, settings, accumulated=accumulated), strict=True):
        assert sum(without_data.values()) == pytest.approx(sum(with_data.values()), rel=tolerance)


def test_it_is_what_torchs_own_tracker_counts():
    with FakeTensorMode():
        model = fake_model(model_config("tiny"), TINY)
        step, _ = run_step(model, TINY)
        other = fake_model(model_config("tiny"), TINY)
        tracker = MemTracker()
        tracker.track_external(other)
        tokens = torch.zeros(4, 64, dtype=torch.long)
        with tracker, without_logits(other):
            other(input_ids=tokens, labels=tokens).loss.backward()
        peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    counted = sum(step.values()) + sum(parameter.numel() * 4 for parameter in model.parameters())
    assert counted == pytest.approx(peak["Total"], rel=0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("case", ["9m/pre", "71m/pre, FSDP, batch 2, checkpointing"])
def test_a_real_training_takes_what_was_planned(case):
    """The resident memory of one or two processes that train, by the operating system; the benchmark has more sizes."""
    found = subprocess.run([sys.executable, BENCHMARK, case], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
