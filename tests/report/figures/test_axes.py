import math
from itertools import pairwise

import pytest

from mixln.report.figures import axes


def test_a_small_range_is_drawn_as_it_is() -> None:
    axis = axes.spread("", [-0.2, 0.1, 0.5, math.nan])
    assert (axis.bend, axis.ticks) == (0.0, ())
    assert axis.low < -0.2
    assert axis.high > 0.5
    assert axis.drawn(0.3) == 0.3


def test_zero_is_the_end_of_values_of_one_sign() -> None:
    assert axes.spread("", [0.2, 0.5]).low == 0.0
    assert axes.spread("", [-0.2, -0.5]).high == 0.0
    assert axes.spread("", [0.01, 0.02, 0.03, 8.0]).low == 0.0


def test_orders_of_magnitude_are_bent_around_zero() -> None:
    axis = axes.spread("", [8.0, 0.03, 0.02, 0.015, -0.012])
    assert axis.bend == pytest.approx(0.01)
    assert axis.drawn(0.0) == 0.0
    assert axis.drawn(1.0) == pytest.approx(math.asinh(100))
    assert axis.drawn(-0.5) == -axis.drawn(0.5)
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == 1
    assert [text for _, text in axis.ticks] == ["−0.01", "0", "0.01", "0.1", "1", "10"]
    assert [value for value, _ in axis.ticks] == pytest.approx([-0.01, 0.0, 0.01, 0.1, 1.0, 10.0])


@pytest.mark.parametrize(
    "values", [[8.0, 0.01, 0.02], [300.0, 1e-9, 2e-9, -1e-9], [-8.0, -0.1, -0.2, -0.15], [-30.0, 30.0, 0.1, 0.1, 0.1]]
)
def test_a_bent_axis_shows_every_value_and_a_few_ticks(values: list[float]) -> None:
    axis = axes.spread("", values)
    assert axis.bend > 0
    assert all(axis.low < value < axis.high for value in values)
    assert 4 <= len(axis.ticks) <= 12
    places = [axis.share(value) for value, _ in axis.ticks]
    assert places == sorted(places)
    assert min(after - before for before, after in pairwise(places)) > 0.03
    assert (0.0, "0") in axis.ticks


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [math.nan, math.inf]])
def test_without_values_there_is_still_a_range(values: list[float]) -> None:
    axis = axes.spread("", values)
    assert axis.low < 0 < axis.high


@pytest.mark.parametrize(("high", "end"), [(0.46, 0.5), (0.5, 0.5), (0.031, 0.035), (0.0, 1.0)])
def test_a_scale_from_zero_ends_at_a_round_number(high: float, end: float) -> None:
    axis = axes.from_zero("", [high / 2, high])
    assert (axis.low, axis.high) == (0.0, pytest.approx(end))
    assert axis.ticks[0] == (0.0, "0")
    assert axis.ticks[-1][0] == pytest.approx(end)
