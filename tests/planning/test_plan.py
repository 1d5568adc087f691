"""Plans: tokens, operations, time, and remedies that are true."""

from __future__ import annotations

import dataclasses

import pytest

from mixln.errors import SettingsError
from mixln.planning.plan import make_plan
from mixln.planning.settings import PlanSettings
from tests import small

NINE = PlanSettings(model="9m", batch_size=64, sequence_length=128, steps=100)


def change(**changes):
    return make_plan(dataclasses.replace(NINE, **changes))


def test_tokens_operations_and_time():
    plan = change()
    assert plan.tokens == 100 * 64 * 128
    # The layers' and the head's matrices of 9m, and its attention over sequences of 128.
    weights = 4 * (4 * 128 * 128 + 3 * 128 * 352) + 32_000 * 128
    assert plan.model_flops == plan.tokens * (6 * weights + 12 * 4 * 128 * 128)
    assert plan.seconds == pytest.approx(plan.model_flops / (989e12 * 0.4))
    assert change(devices=4, utilisation=0.2).seconds == pytest.approx(plan.seconds / 2)


def test_checkpointing_costs_time_and_no_model_flops():
    plain, checkpointed = change(), change(activation_checkpointing=True)
    assert checkpointed.model_flops == plain.model_flops
    layers = plain.flops.weights - plain.flops.head
    again = plain.tokens * (2 * layers + 4 * plain.flops.attention)
    assert checkpointed.executed_flops == plain.model_flops + again


def test_what_fits_needs_no_remedy():
    plan = change()
    assert plan.fits
    assert plan.remedy is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        # The activations of 64 sequences are too much for 1.5 GB, those of 32 are not.
        ({"memory_per_device": 1.5}, {"micro_batch_size": 32}),
        # Weights, gradients, moments and buckets of 350m are 7.4 GB: no micro batch helps, sharing them out does.
        ({"model": "350m", "memory_per_device": 7.0, "devices": 8}, {"parallel": "fsdp"}),
    ],
)
def test_the_remedy_fits_and_is_the_least_change(changes, remedy):
    plan = change(**changes)
    assert not plan.fits
    assert plan.remedy is not None
    assert {name: getattr(plan.remedy, name) for name in remedy} == remedy
    assert not plan.remedy.activation_checkpointing
    helped = make_plan(plan.remedy)
    assert helped.fits
    larger = 2 * plan.remedy.micro_batch
    if plan.remedy.share % larger == 0 and larger <= plan.settings.micro_batch:
        assert not make_plan(dataclasses.replace(plan.remedy, micro_batch_size=larger)).fits


def test_checkpointing_is_the_remedy_where_one_long_sequence_is_too_much():
    plan = change(model="tiny", sequence_length=8192, batch_size=1, memory_per_device=1.5)
    assert plan.remedy is not None
    assert plan.remedy.activation_checkpointing
    assert make_plan(plan.remedy).fits


@pytest.mark.long
def test_where_nothing_helps_there_is_no_remedy():
    plan = change(model="1b", memory_per_device=2.0)
    assert not plan.fits
    assert plan.remedy is None


def test_a_config_json(tmp_path):
    path = small.write_config(tmp_path / "config.json")
    plan = make_plan(PlanSettings(model=str(path), sequence_length=32, batch_size=2, placement="hybrid*"))
    assert plan.parameters > plan.without_embeddings > 0


def test_a_model_that_does_not_exist():
    with pytest.raises(SettingsError, match="model '70b' is not known"):
        make_plan(PlanSettings(model="70b"))
