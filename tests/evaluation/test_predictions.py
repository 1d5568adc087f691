"""Figures of a classifier on known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mixln.evaluation.predictions import BINS, PREDICTIONS, Predictions

THREE = Predictions(  # right and sure, wrong and sure, right and unsure
    labels=np.array([0, 1, 1]),
    predicted=np.array([0, 0, 1]),
    confidence=np.array([1.0, 0.98, 0.4]),
    top5=np.array([True, False, True]),
    losses=np.array([0.0, 4.0, 0.5]),
)


def test_figures_by_hand():
    found = THREE.figures()
    assert found["loss"] == pytest.approx(1.5)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_error"] == pytest.approx(math.sqrt(2 / 9 / 3))
    assert found["top5"] == pytest.approx(2 / 3)
    # the two sure ones share a bin: confidence 0.99, accuracy 0.5; the unsure one is alone: 0.4 and 1
    assert found["calibration"] == pytest.approx((2 * 0.49 + 0.6) / 3)


def test_bins_by_hand():
    assert THREE.reliability() == [(pytest.approx(0.4), 1.0, 1), (pytest.approx(0.99), 0.5, 2)]
    assert int(0.4 * BINS) != BINS - 1


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    labels = np.arange(1000) % 2
    right = np.arange(1000) < 700
    sure = Predictions(
        labels=labels,
        predicted=np.where(right, labels, 1 - labels),
        confidence=np.full(1000, 0.7),
        top5=np.full(1000, True),
        losses=np.zeros(1000),
    )
    assert sure.figures()["calibration"] == pytest.approx(0.0)


def test_they_are_read_as_they_were_written(tmp_path):
    THREE.write(tmp_path)
    found = Predictions.read(tmp_path)
    assert found.figures() == THREE.figures()
    assert found.predicted.dtype == np.int64
    (tmp_path / PREDICTIONS).write_bytes(b"no archive")
    with pytest.raises(ValueError, match="pickle"):
        Predictions.read(tmp_path)


@pytest.mark.parametrize("kept", [0, 300])
def test_what_is_cut_off_is_damaged(tmp_path, kept):
    THREE.write(tmp_path)
    whole = (tmp_path / PREDICTIONS).read_bytes()
    (tmp_path / PREDICTIONS).write_bytes(whole[:kept])
    with pytest.raises(ValueError, match="corrupt"):
        Predictions.read(tmp_path)


def test_columns_of_different_length_are_damaged(tmp_path):
    replace(THREE, labels=np.array([0, 1])).write(tmp_path)
    with pytest.raises(ValueError, match="differ in length"):
        Predictions.read(tmp_path)
