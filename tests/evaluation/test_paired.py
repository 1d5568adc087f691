"""Differences on the same questions against numbers by hand."""

from __future__ import annotations

import pytest
from scipy import stats

from mixln.evaluation.paired import pairs
from mixln.evaluation.results import Score, Scores, TaskMetric


def scores(model: str, values: list[float], *, name: str = "acc", weights: list[float] | None = None) -> Scores:
    metric = TaskMetric(
        name=name,
        value=sum(values) / (sum(weights) if weights else len(values)),
        stderr=None,
        higher_is_better=name == "acc",
        values=tuple(values),
        weights=tuple(weights or ()),
    )
    score = Score(task="t", version="1", shots=0, questions=len(values), cut=0, metrics=(metric,))
    return Scores(model=model, scores=(score,))


def test_right_and_wrong_by_hand():
    a = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    b = [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    (pair,) = pairs(scores("a", a), scores("b", b))
    assert (pair.model, pair.baseline, pair.better, pair.worse) == ("a", "b", 5, 1)
    assert pair.difference == pytest.approx(4 / 8)
    assert pair.p == pytest.approx(2 * (1 + 6) / 2**6)  # of 6 that differ, at most one the other way
    # The share q of 6 for which 5 or more, or 5 or fewer, have probability 0.025.
    low, high = stats.beta.ppf(0.025, 5, 2), stats.beta.ppf(0.975, 6, 1)
    assert (pair.low, pair.high) == (pytest.approx(6 / 8 * (2 * low - 1)), pytest.approx(6 / 8 * (2 * high - 1)))


@pytest.mark.parametrize("better", range(21))
def test_the_interval_of_right_and_wrong_excludes_zero_where_p_is_small(better):
    a, b = [1.0] * better + [0.0] * (20 - better) + [1.0] * 30, [0.0] * better + [1.0] * (20 - better) + [1.0] * 30
    (pair,) = pairs(scores("a", a), scores("b", b))
    assert pair.low <= pair.difference <= pair.high
    assert (pair.p < 0.05) == (pair.low > 0 or pair.high < 0)


def test_the_same_answers_are_no_difference():
    """What they may differ in after all: a share that n questions miss with probability 0.025."""
    (pair,) = pairs(scores("a", [1.0, 0.0, 1.0]), scores("b", [1.0, 0.0, 1.0]))
    assert (pair.difference, pair.p) == (0, 1)
    assert (1 - pair.high) ** 3 == pytest.approx(0.025)
    assert pair.low == -pair.high


def test_bits_per_byte_weigh_documents_by_their_bytes():
    weights = [100.0, 300.0, 50.0]
    a, b = [120.0, 330.0, 70.0], [150.0, 390.0, 72.0]
    (pair,) = pairs(
        scores("a", a, name="bits_per_byte", weights=weights), scores("b", b, name="bits_per_byte", weights=weights)
    )
    assert pair.difference == pytest.approx((520 - 612) / 450)
    assert (pair.better, pair.worse) == (3, 0)  # fewer bits are better
    assert pair.low < pair.difference < pair.high


def test_other_questions_are_not_compared():
    assert pairs(scores("a", [1.0, 0.0]), scores("b", [1.0])) == ()
    assert pairs(scores("a", [1.0]), scores("b", [1.0], name="acc_norm")) == ()
