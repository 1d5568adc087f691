"""What a classifier says of held-out images, one answer an image, and the figures that follow; nothing here needs torch."""

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
"""Of the expected calibration error (arXiv:1706.04599)."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Of N images, in their order, arrays of length N.

    :param labels: the true classes; `predicted` the most probable ones.
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
        """Which are right (N,)."""
        return self.labels == self.predicted

    def figures(self) -> dict[str, float]:
        """Means over the images: `loss` (nats), `accuracy` with its standard error, `top5`, and `calibration`, the expected
        calibration error: the mean distance of confidence and accuracy over bins of equal width, each weighed by its images."""
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
        """Of each of :data:`BINS` bins of confidence that has images: mean confidence, accuracy, and the number of images."""
        place = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        members = [place == each for each in range(BINS)]
        return [
            (float(self.confidence[chosen].mean()), float(self.right[chosen].mean()), int(chosen.sum()))
            for chosen in members
            if chosen.any()
        ]

    def write(self, folder: Path) -> None:
        """Writes them into a folder, in place of earlier ones."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{item.name: getattr(self, item.name) for item in fields(self)})  # type: ignore[arg-type]
        write_atomic(folder / PREDICTIONS, buffer.getvalue())

    @classmethod
    def read(cls, folder: Path) -> Predictions:
        """What :meth:`write` wrote.

        :raises OSError: if it is not there; :class:`ValueError` or :class:`KeyError` if it is damaged.
        """
        try:
            with np.load(io.BytesIO((folder / PREDICTIONS).read_bytes()), allow_pickle=False) as file:
                found = cls(**{item.name: file[item.name] for item in fields(cls)})
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{folder / PREDICTIONS} is damaged: {error}") from error
        if len({getattr(found, item.name).shape for item in fields(cls)}) != 1 or found.labels.ndim != 1:
            raise ValueError(f"{folder / PREDICTIONS} is damaged: its columns are not of one length")
        return found
