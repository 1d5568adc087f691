"""Where a ramp breaks, on curves whose answer is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.search.stability_limit import WINDOW, ramp_outcome

START, FLOOR = 8.0, 6.0
RATES = [10 ** (-4 + index / 10) for index in range(41)]


def curve(*pieces: tuple[int, float]) -> list[float]:
    """Losses that go on straight lines: (records, loss at their end)."""
    losses = [START]
    for count, end in pieces:
        begin = losses[-1]
        losses += [begin + (end - begin) * (index + 1) / count for index in range(count)]
    return losses


def test_one_that_trains_to_the_end():
    found = ramp_outcome(RATES, curve((40, 4.0)), floor=FLOOR)
    assert (found.failure, found.rate, found.spikes) == ("none", RATES[-1], 0)
    assert found.least == pytest.approx(4.0, abs=0.4)


def test_one_that_overflows():
    """It trained up to record 25, and was ended there."""
    found = ramp_outcome(RATES, [*curve((25, 4.0)), None, None], floor=FLOOR)
    assert found.failure == "diverges"
    assert RATES[25] <= (found.rate or 0) <= RATES[27]


def test_one_whose_loss_rises_above_its_start():
    found = ramp_outcome(RATES, curve((25, 4.0), (1, 9.0), (14, 12.0)), floor=FLOOR)
    assert found.failure == "diverges"
    assert RATES[24] <= (found.rate or 0) <= RATES[25 + WINDOW // 2]


@pytest.mark.parametrize("end", [(12.0, 12.0), (4.0, None)])
def test_one_that_breaks_in_its_last_records(end):
    losses = curve((40, 4.0))
    losses[-2:] = end
    found = ramp_outcome(RATES, losses, floor=FLOOR)
    assert (found.failure != "none", found.rate) == (True, RATES[-3])


def test_a_first_record_that_overflows_excuses_no_later_one():
    losses = curve((20, 4.0), (20, 7.0))
    losses[:3] = [None] * 3
    assert ramp_outcome(RATES, losses, floor=FLOOR).rate < RATES[25]


def test_one_that_falls_back_to_word_frequencies():
    found = ramp_outcome(RATES, curve((25, 4.0), (5, 6.5), (10, 6.5)), floor=FLOOR)
    assert found.failure == "stalls"
    assert RATES[24] <= (found.rate or 0) <= RATES[29]


def test_one_that_loses_a_part_of_what_it_had_learnt():
    found = ramp_outcome(RATES, curve((25, 4.0), (5, 5.0), (10, 5.0)), floor=FLOOR)
    assert found.failure == "worsens"


def test_one_that_never_learns():
    found = ramp_outcome(RATES, curve((10, 6.4), (30, 6.4)), floor=FLOOR)
    assert (found.failure, found.rate) == ("stalls", None)


def test_a_spike_that_is_recovered_from_is_counted_and_does_not_end_it():
    found = ramp_outcome(RATES, curve((20, 4.0), (2, 7.0), (4, 7.0), (2, 3.9), (12, 3.5)), floor=FLOOR)
    assert (found.failure, found.rate, found.spikes) == ("none", RATES[-1], 1)
    assert RATES[20] < (found.first_spike or 0) < RATES[26]


def test_noise_before_anything_is_learnt_is_no_spike():
    losses = curve((10, 7.99), (30, 4.0))
    losses[6:11] = [8.02] * 5
    assert ramp_outcome(RATES, losses, floor=FLOOR).spikes == 0


def test_one_outlier_is_no_spike():
    losses = curve((40, 4.0))
    losses[20] = 12.0
    assert ramp_outcome(RATES, losses, floor=FLOOR).spikes == 0


@given(st.lists(st.one_of(st.none(), st.floats(0.5, 20), st.just(math.inf)), min_size=41, max_size=41))
def test_whatever_the_curve_the_rate_is_one_of_the_ramp(losses):
    found = ramp_outcome(RATES, [START, *losses[1:]], floor=FLOOR)
    assert found.rate is None or found.rate in RATES
    assert (found.failure == "none") == (found.rate == RATES[-1])
    assert found.first_spike is None or found.first_spike < (found.rate or 0)
