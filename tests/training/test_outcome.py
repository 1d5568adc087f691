"""How a training ends: finished, diverged with its step and reason, or stalled."""

from __future__ import annotations

import json
import math

import pytest
from transformers import TrainerControl, TrainerState

from mixln.training.callbacks import Divergence
from tests import small
from tests.runs.test_metrics import no_constant

ABSURD = {"learning_rate": 1e6, "warmup": 0, "max_gradient_norm": 0, "steps": 12}


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_an_absurd_learning_rate_ends_as_diverged(text, tmp_path, placement):
    outcome = small.train(text, tmp_path, placement, **ABSURD)
    assert outcome.status == "diverged"
    assert outcome.reason in ("the training loss is not finite", "the held-out loss is not finite")
    assert outcome.loss is outcome.bits_per_byte is outcome.perplexity is None
    assert 1 <= outcome.step < 12
    assert outcome.tokens == outcome.step * 4 * small.LENGTH


def test_a_diverged_training_leaves_no_checkpoint_that_looks_final(text, tmp_path):
    outcome = small.train(text, tmp_path, **ABSURD)
    assert not (tmp_path / f"checkpoint-{outcome.step}").exists()


def test_the_metrics_of_a_diverged_training_are_plain_json(text, tmp_path):
    small.train(text, tmp_path, "post", learning_rate=1e6, warmup=0, max_gradient_norm=0, steps=12, evaluations=1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in (json.loads(line, parse_constant=no_constant) for line in lines) if "loss" in row]
    assert losses[0] > 5
    assert losses[-1] is None


def test_a_few_steps_end_as_stalled(text, tmp_path):
    outcome = small.train(text, tmp_path, steps=3)
    assert outcome.status == "stalled"
    assert outcome.loss > text.info.unigram_loss
    assert outcome.reason == (
        f"held-out loss {outcome.loss:.3f} is not below the unigram baseline {text.info.unigram_loss:.3f} by 0.02 or more"
    )
    assert outcome.step == 3


def test_a_training_that_learns_ends_as_finished(text, tmp_path):
    outcome = small.train(text, tmp_path, steps=40, learning_rate=2e-2)
    assert (outcome.status, outcome.reason, outcome.step) == ("finished", "", 40)
    assert outcome.loss < text.info.unigram_loss - 0.5
    assert outcome.tokens_per_second > 0
    assert outcome.seconds > outcome.first_step_seconds > 0


def test_the_profiles_name_every_sublayer_at_the_start_and_at_the_end(text, tmp_path):
    outcome = small.train(text, tmp_path, "mix(0.5)")
    for profiles, steps in ((outcome.gradient_norms, [1, 6]), (outcome.residual_variance, [0, 6])):
        assert [profile.step for profile in profiles] == steps
        for profile in profiles:
            assert len(profile.attention) == len(profile.feed_forward) == 2
            assert all(value > 0 for value in profile.attention + profile.feed_forward)


class Driven:
    """The divergence rule fed with logged losses one by one, as the Trainer would."""

    def __init__(self, patience: int) -> None:
        self.rule = Divergence(patience)
        self.state, self.control = TrainerState(), TrainerControl()

    def log(self, **logs: float) -> None:
        self.state.log_history.append(logs)
        self.rule.on_log(None, self.state, self.control, logs=logs)

    def steps_until_stop(self, losses: list[float]) -> int | None:
        for number, loss in enumerate(losses, 1):
            self.log(loss=loss)
            if self.control.should_training_stop:
                return number
        return None


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([5.0, 5.1, 5.2, 5.1, 5.3], 4),
        ([5.0, 5.1, 5.2, 4.9, 5.1, 5.2, 5.3], 7),
        ([5.0, 4.0, 5.1, 5.2, 5.3], 5),
        ([5.0, 5.1, 5.1, 5.0, 5.1, 5.1], None),
        ([5.0, 5.0, 5.0, 5.0, 5.0], None),
        ([5.0, 4.0, 4.5, 4.9, 4.99], None),
        ([5.0, 6.0, 6.0], None),
    ],
    ids=["above", "interrupted", "after a fall", "touches", "equal", "rises below", "too short"],
)
def test_a_loss_that_stays_above_its_start_ends_the_training(losses, stops):
    driven = Driven(patience=3)
    assert driven.steps_until_stop(losses) == stops
    assert driven.rule.reason == (
        "the training loss stayed above its initial value 5.000 for 3 records" if stops else ""
    )


def test_the_rule_waits_for_twenty_records_and_for_nothing_else():
    assert Driven(patience=Divergence().patience).steps_until_stop([5.0] + [5.1] * 30) == 21


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "word"), [("loss", "training"), ("eval_loss", "held-out")])
def test_a_loss_that_is_not_finite_ends_the_training_at_once(name, word, value):
    driven = Driven(patience=3)
    driven.control.should_evaluate = True
    driven.log(loss=5.0)
    assert not driven.control.should_training_stop
    driven.log(**{name: value})
    assert driven.control.should_training_stop
    assert not driven.control.should_evaluate
    assert driven.rule.reason == f"the {word} loss is not finite"


def test_a_resumed_training_counts_the_records_before_the_cut():
    whole, resumed = Driven(patience=3), Driven(patience=3)
    assert whole.steps_until_stop([5.0, 5.1, 5.2, 5.3]) == 4
    resumed.state.log_history.extend({"loss": loss} for loss in (5.0, 5.1))
    assert resumed.steps_until_stop([5.2, 5.3]) == 2
