"""Held-out windows: every token but the first is predicted exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixln.data.packing import IGNORED, held_out_windows


@given(tokens=st.integers(2, 200), length=st.integers(2, 40))
def test_every_token_but_the_first_is_a_target_exactly_once(tokens, length):
    stream = np.arange(tokens)
    _, labels = held_out_windows(stream, length)
    targets = labels[:, 1:]
    assert sorted(targets[targets != IGNORED]) == list(range(1, tokens))


@given(tokens=st.integers(2, 200), length=st.integers(2, 40))
def test_a_target_stands_after_the_tokens_that_precede_it_in_the_text(tokens, length):
    inputs, labels = held_out_windows(np.arange(tokens), length)
    assert inputs.shape == labels.shape
    assert inputs.shape[1] == length
    for row_inputs, row_labels in zip(inputs, labels, strict=True):
        for position in range(1, length):
            if row_labels[position] != IGNORED:
                assert row_inputs[position - 1] == row_labels[position] - 1


@pytest.mark.parametrize(
    ("tokens", "length", "inputs", "labels"),
    [
        (5, 3, [[0, 1, 2], [2, 3, 4]], [[0, 1, 2], [2, 3, 4]]),
        (4, 3, [[0, 1, 2], [2, 3, 3]], [[0, 1, 2], [2, 3, IGNORED]]),
        (3, 2, [[0, 1], [1, 2]], [[0, 1], [1, 2]]),
        (2, 2, [[0, 1]], [[0, 1]]),
        (2, 4, [[0, 1, 1, 1]], [[0, 1, IGNORED, IGNORED]]),
    ],
    ids=["fits", "ragged tail", "length 2", "one window", "shorter than a window"],
)
def test_windows_by_hand(tokens, length, inputs, labels):
    found_inputs, found_labels = held_out_windows(np.arange(tokens), length)
    assert found_inputs.tolist() == inputs
    assert found_labels.tolist() == labels
