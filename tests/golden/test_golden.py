"""Every fixed run gives the golden numbers: to the bit on the machine that wrote them, closely on others."""

from __future__ import annotations

import pytest

from tests.golden.compared import differences
from tests.golden.runs import RUNS

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_golden_numbers(name, tmp_path):
    found = differences(name, RUNS[name](tmp_path))
    assert not found, "\n".join(found[:20])


def test_a_changed_number_is_found():
    from tests.golden import compared

    golden = {"a": {"loss": 1.0, "step": 3}, "b": [1.0, 2.0]}
    assert list(compared._unlike(golden, {"a": {"loss": 1.0, "step": 3}, "b": [1.0, 2.0]}, 0.0, "")) == []
    assert list(compared._unlike(golden, {"a": {"loss": 1.0000001, "step": 3}, "b": [1.0, 2.0]}, 0.0, "")) != []
    assert list(compared._unlike(golden, {"a": {"loss": 1.0000001, "step": 3}, "b": [1.0, 2.0]}, 1e-3, "")) == []
    assert list(compared._unlike(golden, {"a": {"loss": 1.0, "step": 4}, "b": [1.0, 2.0]}, 1e-3, "")) != []
    assert list(compared._unlike(golden, {"a": {"loss": 1.0}, "b": [1.0, 2.0]}, 1e-3, "")) != []
    assert list(compared._unlike(golden, {"a": {"loss": 1.0, "step": 3}, "b": [1.0]}, 1e-3, "")) != []
