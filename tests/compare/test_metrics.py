"""The metrics of trials: numbers as text, which end is better, and which of several learning rates is best."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mixln.compare.metrics import ACCURACY, BITS_PER_BYTE, PERPLEXITY
from mixln.compare.tasks import TASKS
from tests.compare.records import FLOORS, result, rows, summary


def classifiers(placement: str, accuracies: list[float], *, rate: float = 1e-3, status: str | None = None) -> list:
    """Trials whose losses say the opposite of their accuracies."""
    trials = [result(placement, 1 + a, seed=seed, rate=rate, status=status) for seed, a in enumerate(accuracies)]
    figures = [{"accuracy": a, "top5": 0.99, "calibration": 0.02} for a in accuracies]
    return [replace(trial, bits_per_byte=None, figures=f) for trial, f in zip(trials, figures, strict=True)]


def test_a_change_of_perplexity_is_in_percent():
    assert PERPLEXITY.say_change(math.log(0.747)) == "−25.3%"
    assert ACCURACY.say_change(0.0123) == "+1.23 points"


def test_the_sign_of_harm():
    assert (PERPLEXITY.harm, ACCURACY.harm) == (1, -1)
    better, worse = result("pre", 2.0), result("pre", 3.0)
    assert PERPLEXITY.badness(better) < PERPLEXITY.badness(worse) < PERPLEXITY.badness(result("pre", None))
    (high,), (low,) = classifiers("pre", [0.9]), classifiers("pre", [0.1])
    assert ACCURACY.badness(high) < ACCURACY.badness(low) < ACCURACY.badness(better)


@pytest.mark.parametrize(("task", "text"), [("language", "500.0"), ("vision", "10.00%")])
def test_the_floor_in_the_metrics_own_number(task, text):
    assert TASKS[task].metrics.ranking.say(FLOORS[task]) == text


def test_nothing_is_a_dash():
    assert (ACCURACY.say(result("pre", 2.0)), PERPLEXITY.say(result("pre", None))) == ("—", "—")
    assert PERPLEXITY.say_briefly(None) == "—"


def test_what_is_averaged_is_not_what_is_printed():
    trial = result("pre", 3.0)
    assert (PERPLEXITY.value(trial), PERPLEXITY.number(trial)) == (3.0, pytest.approx(math.exp(3)))
    assert (PERPLEXITY.say(trial), PERPLEXITY.say_briefly(3.0), BITS_PER_BYTE.say(trial)) == ("20.09", "20.1", "1.500")
    for transform in (PERPLEXITY.transform, ACCURACY.transform, BITS_PER_BYTE.transform):
        assert transform.averaged(transform.printed(0.3)) == pytest.approx(0.3)
    assert PERPLEXITY.number(result("pre", 900.0)) == math.inf


def test_the_same_metric_of_another_subject():
    of_number = PERPLEXITY.of(lambda number: number, "of a number")
    assert (of_number.say(math.log(12.345)), of_number.name) == ("12.35", "of a number")
    assert of_number.harm == PERPLEXITY.harm


def test_the_best_learning_rate_is_that_of_the_highest_accuracy():
    trials = [*classifiers("pre", [0.8, 0.8], rate=1e-4), *classifiers("pre", [0.9, 0.9], rate=1e-3)]
    (row,) = summary(trials, task="vision").placements
    assert (row.best.learning_rate, row.common.learning_rate) == (1e-3, 1e-3)
    assert row.best.figures == pytest.approx({"accuracy": 0.9, "top5": 0.99, "calibration": 0.02})
    (by_loss,) = rows(trials)
    assert by_loss.best.learning_rate == 1e-4
