import math

import pytest

from mixln.compare import words


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(18.736, "18.74"), (178.24, "178.2"), (4012.3, "4,012"), (2.5e7, "2.5e+07"), (math.inf, "∞")],
)
def test_perplexity(value: float, text: str) -> None:
    assert words.perplexity(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.0123, "+1.23"), (-0.004, "−0.40"), (1e-9, "0.00"), (-1e-9, "0.00")])
def test_points(share: float, text: str) -> None:
    assert words.points(share) == text


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
