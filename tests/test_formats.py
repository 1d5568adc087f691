import math

import pytest

from mixln import formats


def test_other_numbers() -> None:
    assert [formats.rate(value) for value in (None, 980.4, 12345.0, 123456.0, 1234567.0)] == [
        "—",
        "980",
        "12,345",
        "123k",
        "1.23M",
    ]
    assert [formats.learning_rate(value) for value in (1e-3, 5e-5)] == ["0.001", "5e-05"]
    assert [formats.seconds(value) for value in (8.44, 1234.5)] == ["8.4", "1,234"]
    assert [formats.tick(value) for value in (0.05, 150.0, 2000.0)] == ["0.05", "150", "2,000"]
    assert formats.power(-12) == "10⁻¹²"


def test_numbers_of_a_diagnosis() -> None:
    values = (None, math.nan, 0.0, 0.012, -1.5, 123.4, 12345.6, 3e-7)
    assert [formats.number(value) for value in values] == [
        "—",
        "—",
        "0",
        "0.0120",
        "−1.50",
        "123",
        "12,346",
        "3.00e−07",
    ]
    assert [formats.signed(value) for value in (0.0, 0.1, -0.1, None, math.inf)] == ["0", "+0.100", "−0.100", "—", "—"]
    assert formats.interval(-0.1, 0.25) == "[−0.10, +0.25]"
    assert formats.interval(None, 0.25) == ""
    assert formats.angle(0.12345) == "0.123"
    assert formats.correlation(-0.456) == "−0.46"
    assert [formats.decimals(value, 2, sign=True) for value in (0.0, -0.001, 0.5, -1.0)] == [
        "+0.00",
        "+0.00",
        "+0.50",
        "−1.00",
    ]
    assert (formats.p_value(0.0314), formats.p_value(1e-5)) == ("p = 0.031", "p < 0.001")


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
    assert formats.percent_change(delta) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(18.736, "18.74"), (178.24, "178.2"), (4012.3, "4,012"), (2.5e7, "2.5e+07"), (math.inf, "∞")],
)
def test_perplexity(value: float, text: str) -> None:
    assert formats.perplexity(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.0123, "+1.23"), (-0.004, "−0.40"), (1e-9, "0.00"), (-1e-9, "0.00")])
def test_points(share: float, text: str) -> None:
    assert formats.points(share) == text


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
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text
