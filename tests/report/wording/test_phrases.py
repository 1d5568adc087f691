"""Phrases that several sentences share."""

from __future__ import annotations

import math

import pytest

from mixln.compare.findings import Subject
from mixln.compare.metrics import ACCURACY, PERPLEXITY
from mixln.compare.results import Interval
from mixln.metrics import Metric
from mixln.report.names import plain
from mixln.report.wording import phrases

SHRINKS = Interval(mean=math.log(0.747), low=math.log(0.69), high=math.log(0.809), pairs=3)


@pytest.mark.parametrize(
    ("counts", "steps", "text"),
    [
        ((2, 2, 0, 0, 0), (), "2 of 2"),
        ((0, 1, 1, 0, 0), (), "1 stalled"),
        ((0, 1, 0, 1, 0), (40,), "1 diverged at step 40"),
        ((1, 4, 0, 2, 1), (40, 1070), "1 of 4, 2 diverged at steps 40–1,070, 1 failed"),
        ((0, 1, 0, 1, 0), (), "1 diverged"),
        ((0, 0, 0, 0, 0), (), "0 of 0"),
    ],
)
def test_how_trials_ended(counts: tuple[int, int, int, int, int], steps: tuple[int, ...], text: str) -> None:
    assert " ".join(phrases.ended(*counts, diverged_at=steps)) == text


def test_names_lose_what_does_not_print() -> None:
    assert plain("a\x1b[31m\nb\u202ec") == "a [31m b c"


@pytest.mark.parametrize(
    ("metric", "interval", "text"),
    [
        (PERPLEXITY, SHRINKS, "−25.3% [−31.0, −19.1]"),
        (PERPLEXITY, Interval(mean=-0.1, low=-3, high=3, pairs=2), "−9.5% [very wide]"),
        (PERPLEXITY, Interval(mean=-0.1, low=None, high=None, pairs=1), "−9.5% (n = 1, no interval)"),
        (PERPLEXITY, Interval(mean=-0.1, low=-0.1, high=-0.1, pairs=2), "−9.5% (n = 2, all equal)"),
        (ACCURACY, Interval(mean=0.0123, low=-0.004, high=0.0286, pairs=2), "+1.23 points [−0.40, +2.86]"),
    ],
)
def test_a_difference_with_its_interval(metric: Metric, interval: Interval, text: str) -> None:
    assert phrases.differs(metric, interval) == text


def test_a_mean_beside_seeds_that_stalled() -> None:
    assert [phrases.beside(count) for count in (0, 1, 2)] == ["", " / stalled", " / 2 stalled"]


def test_the_name_of_a_placement_has_its_argument() -> None:
    assert phrases.name(Subject(placement="mix(0.25)", title="Mix-LN")) == "Mix-LN (mix(0.25))"
    assert phrases.name(Subject(placement="pre", title="Pre-LN")) == "Pre-LN"
    assert phrases.name(Subject(placement="group(4)+post", title="group(4)+post")) == "group(4)+post"


def test_lists_and_numbers() -> None:
    assert [phrases.joined(["a", "b", "c"][:count]) for count in (0, 1, 2, 3)] == ["", "a", "a and b", "a, b and c"]
    assert [phrases.plural(count, "seed") for count in (0, 1, 1200)] == ["0 seeds", "1 seed", "1,200 seeds"]
    assert [phrases.layers(3, last) for last in (3, 5)] == ["layer 3", "layers 3 to 5"]
    assert phrases.capitalised("") == ""
    assert phrases.rates((3e-4, 1e-5)) == "0.0003 1e-05"


def test_a_command_is_quoted_for_the_shell() -> None:
    assert phrases.extended("my own", "--seeds 0 1") == "`mixln compare --out 'my own' --seeds 0 1 --extend`"
