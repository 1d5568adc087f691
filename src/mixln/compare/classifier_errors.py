"""Predictions of a comparison's classifiers on held-out images: reliability, and most confident errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixln.compare.results import Misclassification, PlacementPredictions, PlacementSummary, alike
from mixln.compare.statistics import trials_of
from mixln.compare.store import Store
from mixln.evaluation.predictions import PREDICTIONS, Predictions
from mixln.runs.checksums import difference_of, read_sums
from mixln.runs.trials import TrialResult

if TYPE_CHECKING:
    from mixln.data.image_dataset import PreparedImages

MOST = 8
"""Maximum number of errors to show per placement."""
THUMBNAIL = 112
"""Maximum length of a thumbnail's longer side, pixels."""


def classifier_predictions(
    store: Store, rows: Sequence[PlacementSummary], results: Sequence[TrialResult], images: PreparedImages
) -> tuple[PlacementPredictions, ...]:
    """For each placement, the predictions of its trials at its best learning rate on all held-out images.

    Trials without predictions (they diverged or failed) are skipped, and so are placements without any.
    """
    predictions = []
    for row in rows:
        trained = [
            result
            for result in alike(trials_of(results, row.placement, row.best.learning_rate))
            if result.status in ("finished", "stalled")
        ]
        trials = [result.trial for result in sorted(trained, key=lambda result: result.trial.seed)]
        held_out = images.info.held_out_images
        by_seed = [stored for trial in trials if (stored := _read(store.trial_folder(trial), held_out)) is not None]
        if by_seed:
            pooled = Predictions(
                **{name: np.concatenate([getattr(one, name) for one in by_seed]) for name in vars(by_seed[0])}
            )
            mistakes = tuple(_mistakes(by_seed[0], images))
            predictions.append(
                PlacementPredictions(
                    placement=row.placement, reliability=tuple(pooled.reliability()), mistakes=mistakes
                )
            )
    return tuple(predictions)


def _read(folder: Path, images: int) -> Predictions | None:
    """The predictions of a trial; `None` if they are missing or corrupt, which affects no metric: those are in its result."""
    try:
        sums = read_sums(folder) or {}
        if PREDICTIONS in sums and difference_of(folder, {PREDICTIONS: sums[PREDICTIONS]}):
            return None
        predictions = Predictions.read(folder)
    except (OSError, ValueError, KeyError):
        return None
    return predictions if len(predictions.labels) == images else None


def _mistakes(predictions: Predictions, images: PreparedImages) -> list[Misclassification]:
    """The most confident errors."""
    wrong = np.flatnonzero(~predictions.right)
    # Stable, so that equal confidences keep the order of the images.
    most_confident = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:MOST]
    classes = images.info.classes
    return [
        Misclassification(
            image=_thumbnail(images, int(index)),
            label=classes[predictions.labels[index]],
            predicted=classes[predictions.predicted[index]],
            confidence=float(predictions.confidence[index]),
        )
        for index in most_confident
    ]


def _thumbnail(images: PreparedImages, index: int) -> str:
    picture = images.held_out.picture(index)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
