"""The settings of a comparison: every rule, the order of the trials, and what all trials share."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from mixln.compare.chain_settings import ChainSettings
from mixln.compare.settings import CompareSettings, ExecutorSettings, PretrainSettings
from mixln.data.settings import TextSettings
from mixln.errors import SettingsError
from mixln.training.settings import EngineSettings, TrainSettings

WRONG = [
    ({"placements": ("pre", "post", "pre")}, "placements must not repeat, got pre twice"),
    ({"placements": ("mix(0.25)", " MIX( 0.25 )")}, "placements must not repeat, got mix(0.25) twice"),
    ({"learning_rates": (1e-3, 0.001)}, "learning-rates must not repeat, got 0.001 twice"),
    ({"seeds": (3, 3)}, "seeds must not repeat, got 3 twice"),
    ({"learning_rates": (1e-3, 0.0)}, "learning-rates must be above 0, got 0.0"),
    ({"learning_rates": (-1.0,)}, "learning-rates must be above 0, got -1.0"),
    ({"learning_rates": (float("nan"),)}, "learning-rates must be above 0, got nan"),
    ({"learning_rates": (float("inf"),)}, "learning-rates must be above 0, got inf"),
    ({"seeds": (-1,)}, "seeds must lie in [0, 2³²), got -1"),
    ({"seeds": (2**32,)}, "seeds must lie in [0, 2³²), got 4294967296"),
    (
        {"placements": ("pre", "post"), "baseline": "mix(0.25)"},
        "baseline must be one of the placements pre, post, got mix(0.25)",
    ),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_settings(settings, said):
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}$"):
        CompareSettings(**settings)


def test_options_of_an_executor():
    with pytest.raises(SettingsError, match="jobs must be at least 1, got 0"):
        ExecutorSettings(jobs=0)
    with pytest.raises(SettingsError, match="ray-address, cpus-per-trial and gpus-per-trial apply only to"):
        ExecutorSettings(ray_address="auto")


def test_placements_are_spelled_in_one_way():
    made = CompareSettings(placements=(" Mix( 0.25 )", "PRE"), baseline="Pre")
    assert made.placements == ("mix(0.25)", "pre")
    assert made.reference == "pre"


def test_the_baseline_is_the_first_placement_unless_named():
    assert CompareSettings(placements=("post", "pre")).reference == "post"
    assert CompareSettings(placements=("post", "pre"), baseline="pre").reference == "pre"


def test_trials_come_seed_by_seed_and_rate_by_rate_with_all_placements_in_a_row():
    settings = CompareSettings(placements=("pre", "hybrid*"), learning_rates=(1e-2, 1e-3), seeds=(5, 3))
    inits = {"pre": "normal", "hybrid*": "megatron"}
    assert [(t.seed, t.learning_rate, t.placement, t.init) for t in settings.trials(inits)] == [
        (5, 1e-2, "pre", "normal"),
        (5, 1e-2, "hybrid*", "megatron"),
        (5, 1e-3, "pre", "normal"),
        (5, 1e-3, "hybrid*", "megatron"),
        (3, 1e-2, "pre", "normal"),
        (3, 1e-2, "hybrid*", "megatron"),
        (3, 1e-3, "pre", "normal"),
        (3, 1e-3, "hybrid*", "megatron"),
    ]


def test_tokens_of_a_trial():
    settings = CompareSettings(text=TextSettings(sequence_length=16), training=TrainSettings(tokens=1000, batch_size=4))
    assert (settings.steps, settings.tokens) == (16, 1024)


def test_steps_and_tokens_that_come_to_the_same_are_the_same_experiment():
    text = TextSettings(sequence_length=16)
    steps = CompareSettings(text=text, training=TrainSettings(steps=16, batch_size=4))
    tokens = CompareSettings(text=text, training=TrainSettings(tokens=1000, batch_size=4))
    assert steps.shared() == tokens.shared()


SHARED = [
    {"model": "9m"},
    {"init": "small"},
    {"text": TextSettings(sequence_length=64)},
    {"text": TextSettings(held_out=0.1)},
    {"training": TrainSettings(steps=7)},
    {"training": TrainSettings(beta2=0.999)},
]
NOT_SHARED = [
    {"placements": ("pre",)},
    {"learning_rates": (1e-3,)},
    {"seeds": (4,)},
    {"baseline": "post"},
    {"out": Path("elsewhere")},
    {"cache": Path("elsewhere")},
    {"execution": ExecutorSettings(jobs=7)},
    {"execution": ExecutorSettings(executor="ray", ray_address="auto", cpus_per_trial=4, gpus_per_trial=1)},
    {"engine": EngineSettings(activation_checkpointing=True, checkpoint_seconds=1.0)},
    {"extend": True},
    {"diagnose": True},
    {"after": ChainSettings(chain=("finetune",))},
]


@pytest.mark.parametrize("change", SHARED, ids=str)
def test_what_changes_every_number_is_shared(change):
    assert dataclasses.replace(CompareSettings(), **change).shared() != CompareSettings().shared()


@pytest.mark.parametrize("change", NOT_SHARED, ids=str)
def test_the_grid_and_what_changes_no_number_is_not_shared(change):
    assert dataclasses.replace(CompareSettings(), **change).shared() == CompareSettings().shared()


def test_every_setting_is_shared_or_left_out_on_purpose():
    fields = {field.name for field in dataclasses.fields(CompareSettings)}
    left_out = {name for change in NOT_SHARED for name in change} | {"task"}  # which the data say
    assert set(CompareSettings().shared()) == fields - left_out


def test_shared_settings_and_grid_are_plain_json():
    settings = CompareSettings()
    assert json.loads(json.dumps(settings.shared())) == settings.shared()
    assert json.loads(json.dumps(settings.grid())) == {
        "placements": ["pre", "post", "mix(0.25)", "hybrid*"],
        "learning_rates": [3e-3],
        "seeds": [0, 1],
    }


def test_what_is_left_out_takes_its_default_and_adds_nothing_to_an_experiment():
    assert CompareSettings().placements == ("pre", "post", "mix(0.25)", "hybrid*")
    extended = CompareSettings(seeds=(2,), extend=True)
    assert (extended.placements, extended.learning_rates, extended.seeds) == ((), (), (2,))
    grown = extended.with_grid({"placements": ["pre"], "learning_rates": [0.01], "seeds": [0, 2]})
    assert (grown.placements, grown.learning_rates, grown.seeds) == (("pre",), (0.01,), (0, 2))
    assert extended.with_grid(extended.grid()).learning_rates == (3e-3,)


def test_a_baseline_may_be_a_placement_that_the_experiment_has_already():
    extended = CompareSettings(placements=("lns",), baseline="pre", extend=True)
    assert extended.with_grid({**extended.grid(), "placements": ["pre", "lns"]}).reference == "pre"
    with pytest.raises(SettingsError, match="baseline must be one of the placements post, lns, got pre"):
        extended.with_grid({**extended.grid(), "placements": ["post", "lns"]})


def test_sharded_layers_are_not_compiled():
    engine = EngineSettings(compile="on")
    assert PretrainSettings(engine=engine).comparison().engine is engine
    with pytest.raises(SettingsError, match="compile on requires --parallel ddp; use --compile auto"):
        PretrainSettings(engine=engine, parallel="fsdp")
