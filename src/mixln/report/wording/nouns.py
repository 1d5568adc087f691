"""Nouns that depend on the unit over which a task's loss is averaged: tokens or images."""

from __future__ import annotations

from dataclasses import dataclass

from mixln.compare.metrics import Per
from mixln.compare.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Nouns:
    """Nouns of one kind of task.

    :param unit: unit over which the loss is averaged; `throughput` is a short form of units per second.
    :param data: name of the training data.
    :param floor: trivial model that every trial must beat; `floor_is` explains it.
    :param stalled: definition of a stalled trial; `{}` is replaced by the metric of the floor.
    :param at_floor: what a model with the loss of the floor has learnt.
    :param training_loss: how the training loss differs from the held-out one, after a comma; empty if it does not.
    """

    unit: str
    throughput: str
    data: str
    floor: str
    floor_is: str
    stalled: str
    at_floor: str
    training_loss: str

    @property
    def units(self) -> str:
        """The plural of the unit."""
        return f"{self.unit}s"


NOUNS: dict[Per, Nouns] = {
    "token": Nouns(
        unit="token",
        throughput="tok/s",
        data="text",
        floor="unigram baseline",
        floor_is="predicts each token with its frequency in the training text",
        stalled="the held-out loss is no better than that of the unigram baseline (perplexity {})",
        at_floor="only token frequencies",
        training_loss="",
    ),
    "image": Nouns(
        unit="image",
        throughput="img/s",
        data="images",
        floor="most frequent class",
        floor_is="is the accuracy of always predicting it",
        stalled="the accuracy is no better than that of always predicting the most frequent class ({}), or reduces its error by less "
        "than 2%",
        at_floor="only class frequencies",
        training_loss=", on augmented images with smoothed or mixed labels where these are enabled, and then usually higher",
    ),
}
EXPLAINED = {
    "masked perplexity": "e to the power of the loss of the masked tokens",
    "perplexity": "e to the power of the loss",
    "accuracy": "share of images whose most probable class is correct",
}
"""Metric → its definition, for captions."""


def nouns(task: str) -> Nouns:
    """The nouns of a comparison's task."""
    return NOUNS[TASKS[task].metrics.per]
