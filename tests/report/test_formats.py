import math

import pytest

from mixln.report import formats


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
    assert " ".join(formats.ended(*counts, diverged_at=steps)) == text


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


def test_names_lose_what_does_not_print() -> None:
    assert formats.plain("a\x1b[31m\nb\u202ec") == "a [31m b c"


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
    assert formats.hundredths(-0.456) == "−0.46"
