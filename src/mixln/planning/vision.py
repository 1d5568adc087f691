"""What a comparison of image classifiers will need, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from mixln.hosts import build
from mixln.training.settings import VisionTrainSettings


@dataclass(frozen=True, kw_only=True)
class VisionPlan:
    """Of one comparison.

    :param parameters: of its model, with a head of so many classes.
    :param per_image: floating-point operations of one image's training, forward and backward.
    :param steps: optimizer steps of one trial; `images` that it sees.
    """

    trials: int
    parameters: int
    per_image: int
    steps: int
    images: int

    @property
    def flops(self) -> float:
        """Of all trials."""
        return float(self.trials * self.images * self.per_image)


def plan_vision(
    config: PreTrainedConfig, training: VisionTrainSettings, *, trials: int, images: int, classes: int
) -> VisionPlan:
    """Counts 6 for each weight and token that it multiplies, and 12·L·h·T² for attention over T tokens, patches and class token.

    :param config: the model; the number of its classes is set here.
    :param images: training images; `classes` of them.
    """
    config.num_labels = classes
    with torch.device("meta"):
        model = build(config, placement="pre", init="normal", head="image-classification")
    patches = (config.image_size // config.patch_size) ** 2
    tokens = patches + 1
    # The head sees one token, and positions multiply none.
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
