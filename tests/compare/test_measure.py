"""What trials are compared by: numbers as text, which end is better, and a comparison of classifiers from trials to verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mixln.compare.measure import LANGUAGE, VISION
from mixln.compare.results import Floor, Interval
from mixln.compare.statistics import runner_up, summarise
from mixln.compare.verdict import verdict
from tests.compare.records import OUT, result

FLOOR = Floor(loss=math.log(10), figures={"accuracy": 0.1})


def classifiers(placement: str, accuracies: list[float], *, rate: float = 1e-3, status: str | None = None) -> list:
    """Trials whose losses say the opposite of their accuracies."""
    trials = [result(placement, 1 + a, seed=seed, rate=rate, status=status) for seed, a in enumerate(accuracies)]
    figures = [{"accuracy": a, "top5": 0.99, "calibration": 0.02} for a in accuracies]
    return [replace(trial, bits_per_byte=None, figures=f) for trial, f in zip(trials, figures, strict=True)]


def rows(trials):
    placements = list(dict.fromkeys(each.trial.placement for each in trials))
    return summarise(
        trials,
        VISION,
        placements=placements,
        learning_rates=sorted({each.trial.learning_rate for each in trials}),
        baseline=placements[0],
        titles={name: name for name in placements},
    )


def said(trials):
    table = rows(trials)
    return verdict(
        table,
        VISION,
        baseline=trials[0].trial.placement,
        floor=FLOOR,
        learning_rates=sorted({each.trial.learning_rate for each in trials}),
        seeds=sorted({each.trial.seed for each in trials}),
        given="640 images in 10 steps",
        runner_up=runner_up(trials, table, VISION),
        out=OUT,
    )


def test_a_difference_of_losses_is_said_in_percent_of_perplexity():
    interval = Interval(mean=math.log(0.747), low=math.log(0.69), high=math.log(0.809), pairs=3)
    assert " ".join(LANGUAGE.difference(interval)) == "−25.3% [−31.0, −19.1]"
    assert " ".join(LANGUAGE.difference(Interval(mean=-0.1, low=-3, high=3, pairs=2))) == "−9.5% [undecided]"


def test_one_pair_has_no_interval():
    interval = Interval(mean=-0.1, low=None, high=None, pairs=1)
    assert " ".join(LANGUAGE.difference(interval)) == "−9.5% (n = 1, no interval)"
    assert VISION.worse(interval) == Interval(mean=0.1, low=None, high=None, pairs=1)


def test_a_difference_of_accuracies_is_said_in_points():
    interval = Interval(mean=0.0123, low=-0.004, high=0.0286, pairs=2)
    assert " ".join(VISION.difference(interval)) == "+1.23 points [−0.40, +2.86]"
    assert VISION.worse(interval) == Interval(mean=-0.0123, low=-0.0286, high=0.004, pairs=2)
    assert LANGUAGE.worse(interval) == interval


@pytest.mark.parametrize(("measure", "text"), [(LANGUAGE, "10.00"), (VISION, "10.00%")])
def test_the_floor_in_the_measures_own_number(measure, text):
    assert measure.say(FLOOR) == text


def test_nothing_is_a_dash():
    assert (VISION.say(result("pre", 2.0)), LANGUAGE.say(result("pre", None))) == ("—", "—")


def test_the_highest_accuracy_wins_whatever_the_loss():
    found = said([*classifiers("pre", [0.90, 0.901]), *classifiers("mix(0.25)", [0.95, 0.9512])])
    assert found[0].startswith(
        "mix(0.25) has the highest held-out accuracy, 95.1%, at learning rate 0.001: +5.01 points ["
    )
    assert "on this model and images" in found[0]
    assert found[-1].startswith("Every trial was given 640 images in 10 steps.")


def test_worse_is_lower():
    found = said(
        [*classifiers("pre", [0.95, 0.951]), *classifiers("post", [0.90, 0.902]), *classifiers("lns", [0.94, 0.96])]
    )
    assert found[0].startswith("The baseline pre has the highest held-out accuracy, 95.0%")
    assert found[0].endswith("these seeds do not separate it from lns.")
    (post,) = [each for each in found if each.startswith("post against")]
    assert post.endswith(": worse than the baseline here.")


def test_the_best_learning_rate_is_that_of_the_highest_accuracy():
    trials = [*classifiers("pre", [0.8, 0.8], rate=1e-4), *classifiers("pre", [0.9, 0.9], rate=1e-3)]
    (row,) = rows(trials)
    assert (row.best.learning_rate, row.common.learning_rate) == (1e-3, 1e-3)
    assert row.best.figures == pytest.approx({"accuracy": 0.9, "top5": 0.99, "calibration": 0.02})


def test_stalled_says_what_it_means():
    found = said([*classifiers("pre", [0.9, 0.9]), *classifiers("post", [0.1, 0.101], status="stalled")])
    assert any("no better than naming the most frequent class (accuracy 10.00%), or by less" in each for each in found)


def test_the_second_is_behind_the_first():
    trials = [*classifiers("pre", [0.8, 0.81]), *classifiers("post", [0.9, 0.901]), *classifiers("lns", [0.95, 0.9512])]
    (second,) = [each for each in said(trials) if each.startswith("The next, post")]
    assert "has accuracy 90.1%: −5.01 points" in second
    assert second.endswith("behind it.")


def test_equal_differences_are_no_certainty():
    """Of few held-out images, two seeds can differ by exactly one image each."""
    found = said([*classifiers("pre", [0.5, 0.75]), *classifiers("post", [0.625, 0.875])])
    assert "+12.50 points (n = 2, all equal)" in found[0]
    assert found[0].endswith("nothing is known of the noise between them: this supports no claim.")
    found = said([*classifiers("pre", [0.625, 0.875]), *classifiers("post", [0.5, 0.75])])
    assert found[0].endswith("these seeds do not separate it from post.")
    assert any(each.endswith(": not resolved by these seeds.") for each in found)
