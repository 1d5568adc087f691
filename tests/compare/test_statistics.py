"""Paired differences against t intervals by hand, and what a row of the table says about its trials."""

from __future__ import annotations

import math

import pytest

from mixln.compare.metrics import BITS_PER_BYTE, PERPLEXITY
from mixln.compare.results import Interval
from mixln.compare.statistics import paired_difference
from mixln.report.wording.phrases import mean
from tests.compare.records import result, results, rows

T = {2: 12.7062047364, 3: 4.30265272991, 5: 2.7764451052}
"""0.975 quantile of Student's t for n pairs (n − 1 degrees of freedom), from a printed table."""


def test_two_pairs_by_hand():
    """Differences −0.1 and −0.3: mean −0.2, s = 0.1·√2, s/√2 = 0.1."""
    found = paired_difference({0: 2.9, 1: 2.7}, {0: 3.0, 1: 3.0})
    assert found.pairs == 2
    assert found.mean == pytest.approx(-0.2)
    assert found.low == pytest.approx(-0.2 - 0.1 * T[2])
    assert found.high == pytest.approx(-0.2 + 0.1 * T[2])
    assert not found.excludes_zero


def test_three_pairs_by_hand():
    """Differences −0.1, −0.2, −0.3: mean −0.2, s = 0.1, s/√3."""
    found = paired_difference({0: 2.9, 1: 3.8, 2: 1.7}, {0: 3.0, 1: 4.0, 2: 2.0})
    reach = T[3] * 0.1 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((-0.2, -0.2 - reach, -0.2 + reach))
    assert not found.excludes_zero


def test_five_pairs_by_hand():
    """Differences 0.1, 0.2, 0.3, 0.4, 0.5: mean 0.3, s² = 0.1/4."""
    baseline = {seed: 3.0 + seed for seed in range(5)}
    found = paired_difference({seed: baseline[seed] + 0.1 * (seed + 1) for seed in range(5)}, baseline)
    reach = T[5] * math.sqrt(0.025) / math.sqrt(5)
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach))
    assert found.excludes_zero


def test_pairs_take_out_what_the_seeds_have_in_common():
    """The losses spread over 4 nats, their differences over 0.02."""
    found = paired_difference({0: 1.9, 1: 5.88}, {0: 2.0, 1: 6.0})
    assert (found.mean, found.low) == pytest.approx((-0.11, -0.11 - 0.01 * T[2]))


def test_one_pair_has_no_interval():
    assert paired_difference({0: 2.5}, {0: 3.0}) == Interval(mean=-0.5, low=None, high=None, pairs=1)
    assert not paired_difference({0: 2.5}, {0: 3.0}).excludes_zero


def test_only_seeds_that_both_have_are_compared():
    found = paired_difference({0: 1.0, 1: 2.0, 3: 9.0}, {1: 2.5, 2: 9.0, 3: 9.5})
    assert (found.mean, found.pairs) == (-0.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({}, {1: 1.0}) is None


def test_a_cell_averages_over_its_seeds():
    (row,) = rows(results("pre", [3.0, 3.2, 3.7]))
    assert row.best.loss == pytest.approx(3.3)
    assert row.best.loss_deviation == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert row.best.bits_per_byte == pytest.approx(1.65)
    assert row.best.perplexity == pytest.approx(math.exp(3.3))
    assert row.best.tokens_per_second == 100.0
    assert row.best.difference is None


def test_one_seed_has_no_deviation():
    (row,) = rows([result("pre", 3.0)])
    assert (row.best.loss, row.best.loss_deviation, row.best.seeds) == (3.0, None, 1)


def test_a_cell_counts_how_its_trials_ended():
    trials = [
        result("pre", 3.0, seed=0),
        result("pre", 6.0, seed=1, status="stalled"),
        result("pre", None, seed=2),
        result("pre", None, seed=3),
        result("pre", None, seed=4, status="failed", speed=None),
    ]
    (row,) = rows(trials)
    cell = row.best
    assert (cell.seeds, cell.finished, cell.stalled, cell.diverged, cell.failed) == (5, 1, 1, 2, 1)
    assert cell.loss == pytest.approx(3.0)
    assert cell.tokens_per_second == 100.0


def test_no_mean_is_taken_over_seeds_that_trained_and_seeds_that_stalled():
    stalled = result("post", 6.2, seed=1, status="stalled")
    pre, post = rows([*results("pre", [3.0, 3.2]), result("post", 2.5, seed=0), stalled])
    assert (post.best.loss, post.best.bits_per_byte, post.best.loss_deviation) == (2.5, 1.25, None)
    assert post.best.mixed
    assert post.best.difference == Interval(mean=pytest.approx(-0.5), low=None, high=None, pairs=1)
    assert mean(PERPLEXITY, post.best) == "12.18 / stalled"
    assert BITS_PER_BYTE.say(post.best) == "1.250"
    assert not pre.best.mixed


def test_how_many_stalled_is_counted():
    losses = [result("pre", 3.0, seed=0), *(result("pre", 6.0, seed=seed, status="stalled") for seed in (1, 2))]
    assert mean(PERPLEXITY, rows(losses)[0].best) == "20.09 / 2 stalled"


def test_where_all_stalled_their_mean_is_taken():
    (row,) = rows(results("pre", [6.0, 6.2], status="stalled"))
    assert row.best.loss == pytest.approx(6.1)
    assert mean(PERPLEXITY, row.best) == "445.9"


def test_a_placement_without_any_loss_has_none():
    first, second = rows([*results("pre", [3.0, 3.1]), *results("post", [None, None])])
    assert (second.best.loss, second.best.perplexity, second.best.difference) == (None, None, None)
    assert second.best.diverged == 2
    assert first.best.loss == pytest.approx(3.05)


GRID = [
    *results("pre", [3.0, 3.0], rate=1e-3),
    *results("pre", [2.8, 2.8], rate=1e-2),
    *results("pre", [2.9, 2.9], rate=1e-1),
    *results("post", [3.1, 3.3], rate=1e-3),
    *results("post", [3.4, 3.4], rate=1e-2),
    *results("post", [None, None], rate=1e-1),
]


def test_each_placement_has_its_best_learning_rate():
    pre, post = rows(GRID)
    assert (pre.best.learning_rate, post.best.learning_rate) == (1e-2, 1e-3)


def test_the_best_is_compared_with_the_baselines_best():
    """3.1 and 3.3 at 1e-3 against 2.8 at 1e-2."""
    _, post = rows(GRID)
    assert post.best.difference.mean == pytest.approx(0.4)


def test_the_common_learning_rate_is_the_same_for_all_and_compared_with_itself():
    """Sums of losses: 6.2 at 1e-3, 6.2 at 1e-2 but for the tie below, none at 1e-1."""
    trials = [each for each in GRID if (each.trial.placement, each.trial.learning_rate) != ("post", 1e-2)]
    pre, post = rows([*trials, *results("post", [3.3, 3.3], rate=1e-2)])
    assert pre.common.learning_rate == post.common.learning_rate == 1e-2
    assert pre.common.difference is None
    assert post.common.difference.mean == pytest.approx(0.5)


def test_cells_stand_in_ascending_order_and_are_compared_at_their_own_rate():
    _, post = rows(GRID)
    assert [cell.learning_rate for cell in post.cells] == [1e-3, 1e-2, 1e-1]
    assert [cell.difference and cell.difference.mean for cell in post.cells] == [
        pytest.approx(0.2),
        pytest.approx(0.6),
        None,
    ]


def test_a_rate_at_which_more_trials_train_is_better_than_a_lower_loss():
    trials = [
        *results("pre", [3.0, 3.1], rate=1e-3),
        *results("pre", [2.0, None], rate=1e-2),
        result("pre", 2.5, seed=0, rate=1e-1),
        result("pre", 2.5, seed=1, rate=1e-1, status="stalled"),
    ]
    (row,) = rows(trials)
    assert row.best.learning_rate == row.common.learning_rate == 1e-3


def test_the_baseline_may_stand_anywhere():
    pre, post = rows([*results("pre", [3.0, 3.0]), *results("post", [3.5, 3.5])], baseline="post")
    assert post.best.difference is None
    assert pre.best.difference.mean == pytest.approx(-0.5)


def test_rows_keep_the_order_title_and_init_of_their_placements():
    trials = [*results("post", [3.0]), *results("hybrid*", [3.0], init="megatron"), *results("pre", [2.0])]
    found = rows(trials)
    assert [(row.placement, row.title, row.init) for row in found] == [
        ("post", "Title of post", "normal"),
        ("hybrid*", "Title of hybrid*", "megatron"),
        ("pre", "Title of pre", "normal"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(-2.0, -1.0, True), (1.0, 2.0, True), (-1.0, 1.0, False), (-1.0, 0.0, False), (None, None, False)],
)
def test_an_interval_excludes_zero_only_on_one_side_of_it(low, high, excludes):
    assert Interval(mean=0.5, low=low, high=high, pairs=3).excludes_zero is excludes
