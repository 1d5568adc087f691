"""Perplexity, where the loss may be missing or too large."""

from __future__ import annotations

import math

import pytest

from mixln.runs.outcome import perplexity


@pytest.mark.parametrize(("loss", "expected"), [(None, None), (0.0, 1.0), (2.0, math.e**2), (1e4, math.inf)])
def test_perplexity_is_the_exponential_of_the_loss(loss, expected):
    assert perplexity(loss) == (expected if expected is None else pytest.approx(expected))
