"""The settings of a training refuse what cannot work, and say the field, the rule and the value."""

from __future__ import annotations

import re

import pytest

from mixln.errors import SettingsError
from mixln.training.settings import TrainSettings

WRONG = [
    ({"steps": 5, "tokens": 5}, "steps and tokens both set the length of the training; give only one of them"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"tokens": 0}, "tokens must be at least 1, got 0"),
    ({"batch_size": 0}, "batch-size must be at least 1, got 0"),
    ({"micro_batch_size": 0}, "micro-batch-size must be at least 1, got 0"),
    ({"evaluations": 0}, "evaluations must be at least 1, got 0"),
    ({"micro_batch_size": 3}, "micro-batch-size must divide batch-size 8, got 3"),
    ({"micro_batch_size": 16}, "micro-batch-size must divide batch-size 8, got 16"),
    ({"warmup": 1.0}, "warmup must lie in [0, 1), got 1.0"),
    ({"warmup": -0.1}, "warmup must lie in [0, 1), got -0.1"),
    ({"warmup": float("nan")}, "warmup must lie in [0, 1), got nan"),
    ({"final_learning_rate": 1.0}, "final-learning-rate must lie in [0, 1), got 1.0"),
    ({"beta1": 1.0}, "beta1 must lie in [0, 1), got 1.0"),
    ({"beta2": -0.5}, "beta2 must lie in [0, 1), got -0.5"),
    ({"weight_decay": -0.1}, "weight-decay must be 0 or more, got -0.1"),
    ({"weight_decay": float("inf")}, "weight-decay must be 0 or more, got inf"),
    ({"max_gradient_norm": -1.0}, "max-gradient-norm must be 0 or more, got -1.0"),
    ({"max_gradient_norm": float("nan")}, "max-gradient-norm must be 0 or more, got nan"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_settings(settings, said):
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}$"):
        TrainSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 300), ({"steps": 7}, 7), ({"tokens": 640}, 5), ({"tokens": 641}, 6), ({"tokens": 1}, 1)],
    ids=str,
)
def test_tokens_are_rounded_up_to_whole_steps(settings, steps):
    assert TrainSettings(batch_size=8, **settings).total_steps(16) == steps


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"), [(300, 0.1, 30), (10, 0.25, 2), (7, 0.1, 1), (100, 0.0, 0), (4, 0.1, 0)]
)
def test_warm_up_is_rounded_to_whole_steps(steps, warmup, expected):
    assert TrainSettings(steps=steps, warmup=warmup).warmup_steps(16) == expected
