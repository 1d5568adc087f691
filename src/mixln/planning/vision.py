"""Estimates the cost of a comparison of image classifiers in advance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from mixln.hosts import build
from mixln.training.settings import VisionTrainSettings


@dataclass(frozen=True, kw_only=True)
class VisionPlan:
    """The cost of one comparison.

    :param trials: number of trials.
    :param parameters: number of parameters of the model, including the head.
    :param per_image: floating-point operations of the forward and backward pass of one image.
    :param steps: optimizer steps per trial.
    :param images: images that one trial sees in all its steps.
    """

    trials: int
    parameters: int
    per_image: int
    steps: int
    images: int

    @property
    def flops(self) -> float:
        """Floating-point operations of all trials."""
        return float(self.trials * self.images * self.per_image)


def plan_vision(
    config: PreTrainedConfig, training: VisionTrainSettings, *, trials: int, images: int, classes: int
) -> VisionPlan:
    """Counts 6 operations per weight and token that it multiplies, and 12·L·h·T² for attention over T tokens (patches, class token).

    :param config: config of the model; its number of classes is set to `classes`.
    :param images: number of training images; `classes`: number of their classes.
    """
    config.num_labels = classes
    with torch.device("meta"):
        model = build(config, placement="pre", init="normal", head="image-classification")
    patches = (config.image_size // config.patch_size) ** 2
    tokens = patches + 1
    # Part of a parameter's name → tokens that it multiplies. The head reads the class token only, and position and class embeddings
    # are added. All other matrices multiply every token.
    count = {"classifier": 1, "embeddings.position": 0, "embeddings.cls": 0, "embeddings.patch": patches}
    multiplied = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            times = next((times for part, times in count.items() if part in name), tokens)
            multiplied += parameter.numel() * times
    attention = config.num_hidden_layers * config.hidden_size * tokens**2
    steps = training.total_steps(images)
    return VisionPlan(
        trials=trials,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        per_image=6 * multiplied + 12 * attention,
        steps=steps,
        images=steps * training.batch_size,
    )
