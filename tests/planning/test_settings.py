"""What a plan refuses, and what it derives."""

from __future__ import annotations

import dataclasses

import pytest

from mixln.errors import SettingsError
from mixln.planning.settings import DEVICES, TABLE_7, PlanSettings
from mixln.presets import PRESETS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": 3}, "batch-size must be a multiple of devices 3, got 512; change one of them"),
        (
            {"devices": 8, "micro_batch_size": 5},
            "micro-batch-size must divide the 64 sequences per step of each device (batch-size 512 / devices 8), got 5",
        ),
        ({"devices": 8, "micro_batch_size": 128}, "micro-batch-size must divide the 64 sequences"),
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"micro_batch_size": 0}, "micro-batch-size must be at least 1, got 0"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1, "tokens": 2}, "got steps 1 and tokens 2; give only one"),
        ({"sequence_length": 1}, "sequence-length must be at least 2 tokens, got 1"),
        ({"utilisation": 0.0}, "utilisation must lie in (0, 1] (a share of the peak), got 0.0"),
        ({"utilisation": 40.0}, "utilisation must lie in (0, 1]"),
        ({"device_tflops": -1.0}, "device-tflops must be above 0, got -1.0"),
        ({"memory_per_device": float("nan")}, "memory-per-device must be above 0, got nan"),
    ],
)
def test_it_refuses_in_one_line(changes, said):
    with pytest.raises(SettingsError) as caught:
        PlanSettings(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_batch_is_shared_out():
    settings = PlanSettings(batch_size=512, devices=8, micro_batch_size=16)
    assert (settings.share, settings.micro_batch, settings.accumulation) == (64, 16, 4)
    whole = dataclasses.replace(settings, micro_batch_size=None)
    assert (whole.micro_batch, whole.accumulation) == (64, 1)


def test_only_several_devices_share_out_weights():
    assert PlanSettings(devices=8, parallel="fsdp").sharded
    assert not PlanSettings(devices=8, parallel="ddp").sharded
    assert not PlanSettings(devices=1, parallel="fsdp").sharded


def test_the_length_of_a_training():
    assert PlanSettings(model="1b").total_steps(1_339_000_000) == 100_000
    assert PlanSettings(model="1b", steps=7).total_steps(1_339_000_000) == 7
    assert PlanSettings(model="1b", tokens=131_073).total_steps(1_339_000_000) == 2
    # 20 tokens a parameter, in steps of 512 × 256 = 131072 tokens.
    assert PlanSettings(model="350m").total_steps(367_972_352) == -(-20 * 367_972_352 // 131_072)


def test_the_papers_sizes_are_presets():
    assert set(TABLE_7) <= set(PRESETS)


def test_the_peak_and_the_memory_are_the_devices_unless_they_are_given():
    assert PlanSettings(device="a100").peak == DEVICES["a100"].bfloat16 == 312.0
    assert PlanSettings(device="a100", precision="float32").peak == 19.5
    assert PlanSettings(device="a100").memory == 80e9
    own = PlanSettings(device_tflops=100.0, memory_per_device=16.0)
    assert (own.peak, own.memory) == (100.0, 16e9)
