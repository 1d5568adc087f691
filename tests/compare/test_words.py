import math

import pytest

from mixln.compare import words
from mixln.compare.results import Interval


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (math.log(0.747), "−25.3"),
        (math.log(1.0421), "+4.2"),
        (0.0, "0.0"),
        (-1e-6, "0.0"),
        (math.log(11), "+1,000"),
        (math.log(12346.67), "+1e+06"),
        (800.0, "+∞"),
        (-800.0, "−100.0"),
    ],
)
def test_percent_of_perplexity(delta: float, text: str) -> None:
    assert words.percent(delta) == text


def test_a_difference_with_its_interval() -> None:
    interval = Interval(mean=math.log(0.747), low=math.log(0.69), high=math.log(0.809), pairs=3)
    assert " ".join(words.difference(interval)) == "−25.3% [−31.0, −19.1]"


def test_one_pair_has_no_interval() -> None:
    interval = Interval(mean=-0.1, low=None, high=None, pairs=1)
    assert " ".join(words.difference(interval)) == "−9.5% (n = 1, no interval)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text
