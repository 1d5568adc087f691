"""Predictions of a classifier on the held-out images, and the metrics computed from them; nothing here needs torch."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from mixln.files import write_atomic
from mixln.runs.metrics import PREDICTIONS

BINS = 15
"""Bins of the expected calibration error (arXiv:1706.04599)."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions for N images, in the order of the images, as arrays of shape (N,).

    :param labels: true classes; `predicted`: most probable classes.
    :param confidence: probability of the predicted class, in [0, 1].
    :param top5: whether the true class is among the five most probable.
    :param losses: −log of the true class's probability, nats.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    top5: np.ndarray
    losses: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction is correct, (N,)."""
        return self.labels == self.predicted

    def figures(self) -> dict[str, float]:
        """Means over the images: `loss` in nats, `accuracy` with its standard error, `top5`, and `calibration`.

        `calibration` is the expected calibration error: the mean of |confidence − accuracy| over bins of equal width, weighted by their
        numbers of images.
        """
        count, accuracy = len(self.labels), float(self.right.mean())
        bins = self.reliability()
        return {
            "loss": float(self.losses.mean()),
            "accuracy": accuracy,
            "accuracy_error": math.sqrt(accuracy * (1 - accuracy) / count),
            "top5": float(self.top5.mean()),
            "calibration": sum(images * abs(confidence - right) for confidence, right, images in bins) / count,
        }

    def reliability(self) -> list[tuple[float, float, int]]:
        """Mean confidence, accuracy and number of images of every bin that is not empty, out of :data:`BINS` bins of confidence."""
        # A confidence of exactly 1 belongs to the last bin.
        bins = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        members = [bins == index for index in range(BINS)]
        return [
            (float(self.confidence[images].mean()), float(self.right[images].mean()), int(images.sum()))
            for images in members
            if images.any()
        ]

    def write(self, folder: Path) -> None:
        """Writes the file of a folder, in place of an earlier one."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{item.name: getattr(self, item.name) for item in fields(self)})  # type: ignore[arg-type]
        write_atomic(folder / PREDICTIONS, buffer.getvalue())

    @classmethod
    def read(cls, folder: Path) -> Predictions:
        """Reads what :meth:`write` wrote.

        :raises OSError: if the file is missing; :class:`ValueError` or :class:`KeyError` if it is corrupt.
        """
        try:
            with np.load(io.BytesIO((folder / PREDICTIONS).read_bytes()), allow_pickle=False) as file:
                predictions = cls(**{item.name: file[item.name] for item in fields(cls)})
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{folder / PREDICTIONS} is corrupt: {error}") from error
        if len({getattr(predictions, item.name).shape for item in fields(cls)}) != 1 or predictions.labels.ndim != 1:
            raise ValueError(f"{folder / PREDICTIONS} is corrupt: its arrays differ in length")
        return predictions
