"""What the classifiers of a comparison say of held-out images: how sure they are, and their mistakes."""

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
"""Mistakes that are shown of each placement."""
THUMBNAIL = 112
"""Pixels of the longer side of an image that is shown, at most."""


def classifier_predictions(
    store: Store, rows: Sequence[PlacementSummary], results: Sequence[TrialResult], images: PreparedImages
) -> tuple[PlacementPredictions, ...]:
    """Of each placement, what its trials at its best learning rate say of all held-out images.

    Trials without answers (they diverged or failed) are left out, and so is a placement that has no other.
    """
    found = []
    for row in rows:
        trained = [
            result
            for result in alike(trials_of(results, row.placement, row.best.learning_rate))
            if result.status in ("finished", "stalled")
        ]
        trials = [result.trial for result in sorted(trained, key=lambda result: result.trial.seed)]
        held_out = images.info.held_out_images
        by_seed = [answers for trial in trials if (answers := _read(store.trial_folder(trial), held_out)) is not None]
        if by_seed:
            pooled = Predictions(
                **{name: np.concatenate([getattr(each, name) for each in by_seed]) for name in vars(by_seed[0])}
            )
            mistakes = tuple(_mistakes(by_seed[0], images))
            found.append(
                PlacementPredictions(
                    placement=row.placement, reliability=tuple(pooled.reliability()), mistakes=mistakes
                )
            )
    return tuple(found)


def _read(folder: Path, images: int) -> Predictions | None:
    """The answers of a trial, if they are there and as they were written; its figures are in its result all the same."""
    try:
        sums = read_sums(folder) or {}
        if PREDICTIONS in sums and difference_of(folder, {PREDICTIONS: sums[PREDICTIONS]}):
            return None
        answers = Predictions.read(folder)
    except (OSError, ValueError, KeyError):
        return None
    return answers if len(answers.labels) == images else None


def _mistakes(answers: Predictions, images: PreparedImages) -> list[Misclassification]:
    """The mistakes of which the model is surest."""
    wrong = np.flatnonzero(~answers.right)
    surest = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:MOST]
    classes = images.info.classes
    return [
        Misclassification(
            image=_thumbnail(images, int(index)),
            label=classes[answers.labels[index]],
            predicted=classes[answers.predicted[index]],
            confidence=float(answers.confidence[index]),
        )
        for index in surest
    ]


def _thumbnail(images: PreparedImages, index: int) -> str:
    picture = images.held_out.picture(index)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
