"""Image classification."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.compare.metrics import VISION
from mixln.compare.results import FrequencyBaseline, PlacementPredictions, PlacementSummary, TrialLength
from mixln.compare.settings import VisionCompareSettings
from mixln.compare.store import Store
from mixln.compare.tasks.task import Estimate, Task, TaskData, TrainingLength
from mixln.data.settings import ImageSettings
from mixln.errors import DataError
from mixln.planning.settings import DEVICES, UTILISATION
from mixln.presets import vision_config
from mixln.records import from_json, to_json
from mixln.runs.trials import TrialResult

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mixln.data.image_dataset import PreparedImages
    from mixln.hosts.sources import Source
    from mixln.training.image_classification import ImageObjective

log = logging.getLogger(__name__)

LONG = 1000
"""Assumed steps of a training whose length is given in epochs, until its images are counted: enough to tell whether it warms up."""
IMAGENET_SIZE = (1_281_167, 1000)
"""Training images and classes of ImageNet-1K (arXiv:1409.0575)."""


class VisionTask(Task[VisionCompareSettings, "PreparedImages"]):
    """Predict the class of an image."""

    name, entry, head = "vision", "images", "image-classification"
    settings, metrics = VisionCompareSettings, VISION

    def config(self, settings: VisionCompareSettings) -> PreTrainedConfig:
        from mixln.data.augmentation import check_augmentation

        check_augmentation(settings.augment)
        return vision_config(settings.model, **settings.sizes)

    def warms_up(self, settings: VisionCompareSettings) -> bool:
        return round(settings.training.warmup * (settings.training.steps or LONG)) > 0

    def prepare(self, settings: VisionCompareSettings, config: PreTrainedConfig) -> TaskData[PreparedImages]:
        from mixln.data.image_dataset import prepare_images

        log.info(f"images: preparing {settings.images.data}")
        images = prepare_images(
            settings.images, size=config.image_size, channels=config.num_channels, cache=settings.cache
        )
        info, batch = images.info, settings.training.batch_size
        if info.train_images < batch:
            raise DataError(
                f"data {info.description}: {info.train_images} training images are fewer than one batch of {batch}; "
                "give more images, or lower --batch-size"
            )
        steps = settings.training.total_steps(info.train_images)
        passes = steps / (info.train_images // batch)
        log.info(f"images: {info.words} ({passes:.3g} epochs)")
        return TaskData(
            source=images,
            folder=images.folder,
            fingerprint=info.fingerprint,
            config=config,
            length=TrialLength(steps=steps, amount=steps * batch, passes=passes),
            floor=FrequencyBaseline(loss=info.frequency_loss, figures={"accuracy": info.majority}),
            images=info,
        )

    def objective(self, settings: VisionCompareSettings, folder: Path) -> ImageObjective:
        from mixln.data.image_dataset import PreparedImages
        from mixln.training.image_classification import ImageObjective

        return ImageObjective(PreparedImages.load(folder), settings.augment)

    def trained_on(self, experiment: dict[str, Any], source: Source) -> Source:
        images = from_json(ImageSettings, experiment["settings"]["images"], "settings.images")
        return replace(source, images=to_json(images), images_fingerprint=experiment["images"]["fingerprint"])

    def schedule(self, settings: VisionCompareSettings) -> TrainingLength:
        return TrainingLength(epochs=settings.training.epochs)

    def estimate(self, settings: VisionCompareSettings, trials: int) -> Estimate:
        from mixln.planning.vision import plan_vision

        device = DEVICES["h100"]
        images, classes = IMAGENET_SIZE
        config = vision_config(settings.model, **settings.sizes)
        plan = plan_vision(config, settings.training, trials=trials, images=images, classes=classes)
        return Estimate(
            parameters=plan.parameters,
            steps=plan.steps,
            images=settings.training.batch_size,
            per_image=plan.per_image,
            flops=plan.flops,
            hours=plan.flops / (UTILISATION * device.bfloat16 * 1e12) / 3600,
        )

    def stochastic_depth(self, settings: VisionCompareSettings) -> float:
        return settings.stochastic_depth

    def answers(
        self,
        store: Store,
        rows: Sequence[PlacementSummary],
        results: Sequence[TrialResult],
        data: TaskData[PreparedImages],
    ) -> tuple[PlacementPredictions, ...]:
        from mixln.compare.classifier_errors import classifier_predictions

        return classifier_predictions(store, rows, results, data.source)


TASK = VisionTask()
