"""The learning rate of every update: w updates of warm-up of which the first is not lost, then a cosine that ends exactly at the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.training.schedule import factor
from tests import small

TEN = [0.5, 1.0, 0.965746, 0.868198, 0.722208, 0.55, 0.377792, 0.231802, 0.134254, 0.1]
"""N = 10, w = 2, final 0.1: 1/2, 2/2, then 0.1 + 0.45 (1 + cos(kπ/8)) for k = 1 … 8."""


def sequence(steps: int, warmup: int, final: float) -> list[float]:
    return [factor(update, steps=steps, warmup_steps=warmup, final=final) for update in range(steps)]


def test_ten_steps_by_hand():
    assert sequence(10, 2, 0.1) == pytest.approx(TEN, abs=1e-6)


def test_no_warm_up_by_hand():
    assert sequence(4, 0, 0.2) == pytest.approx([0.8828427, 0.6, 0.3171573, 0.2], abs=1e-7)


@st.composite
def schedules(draw):
    steps = draw(st.integers(2, 400))
    return steps, draw(st.integers(0, steps - 1)), draw(st.floats(0, 0.99))


@given(schedules())
def test_warm_up_takes_w_updates_and_none_has_the_rate_zero(schedule):
    warmup = schedule[1]
    rates = sequence(*schedule)
    assert rates[:warmup] == pytest.approx([(update + 1) / warmup for update in range(warmup)])
    assert rates[0] > 0
    assert max(rates) <= 1
    if warmup:
        assert rates[warmup - 1] == 1
        assert rates[warmup] < 1


@given(schedules())
def test_the_last_update_is_exactly_at_the_end_and_the_cosine_falls(schedule):
    _, warmup, final = schedule
    rates = sequence(*schedule)
    assert rates[-1] == pytest.approx(final, abs=1e-15)
    after = rates[warmup:]
    assert all(later < earlier for earlier, later in pairwise(after))


def test_the_trainer_applies_the_schedule(tmp_path):
    text = small.prepared(tmp_path)
    small.train(text, tmp_path / "run", learning_rate=2e-3, steps=10, warmup=0.2, final_learning_rate=0.1)
    applied = small.column(tmp_path / "run", "learning_rate")
    assert applied == pytest.approx([2e-3 * rate for rate in TEN], rel=1e-5)


def test_the_weights_move_at_the_rate_that_is_logged(tmp_path):
    """The first AdamW update without decay moves every weight with a gradient by the learning rate: g/(√g² + ε) is ±1."""
    import torch
    from transformers import set_seed

    import mixln

    text = small.prepared(tmp_path)
    rate = 1e-3
    small.train(
        text, tmp_path / "run", learning_rate=rate * 2, steps=1, warmup=0, final_learning_rate=0.5, weight_decay=0
    )
    set_seed(0)
    start = mixln.from_config(small.config(), placement="pre", init="normal").state_dict()
    moved = mixln.from_pretrained(tmp_path / "run" / "checkpoint-1").state_dict()
    gains = torch.cat([(moved[name] - start[name]).abs() for name in start if start[name].ndim == 1])
    assert small.column(tmp_path / "run", "learning_rate") == [rate]
    assert gains.median().item() == pytest.approx(rate, rel=1e-3)
