"""Training an image classifier from its initial values. Shapes: B batch, C channels, S height and width, K classes."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedConfig, TrainingArguments, ViTImageProcessorPil

from mixln.data.augmentation import CentreCrops, ImageCollator, ShuffledImages
from mixln.data.image_dataset import PreparedImages
from mixln.data.settings import AugmentSettings
from mixln.evaluation.predictions import Predictions
from mixln.runs.metrics import MetricsFile
from mixln.training import ranks
from mixln.training.averaging import Averaging
from mixln.training.pretraining import Assessment, Objective, ScratchTrainer, TrainerSetup
from mixln.training.settings import VisionTrainSettings

STALL_SHARE = 0.02
"""A trial is `stalled` if it corrects less than this share of the errors of the majority-class baseline."""
EVALUATED = 256
"""Least number of images per forward pass of an evaluation."""
WATCHED = 8
"""Number of held-out images on which the residual stream is measured."""


class VisionTrainer(ScratchTrainer):
    """Cross-entropy with smoothed or mixed labels, on images in a given order.

    :param smoothing: share of each label that is spread evenly over all classes.
    :param averaged: decay of the EMA of the weights, which is evaluated and saved in place of the weights; 0 for no EMA.
    """

    def __init__(self, *, smoothing: float, averaged: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smoothing = smoothing
        self.average = Averaging(self.bare, averaged) if averaged else None
        if self.average:
            self.add_callback(self.average)
        self.model_accepts_loss_kwargs = False  # compute_loss returns the mean over each micro-batch

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = F.cross_entropy(outputs.logits.float(), inputs["labels"], label_smoothing=self.smoothing)
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Figures over all held-out images, with labels neither smoothed nor mixed, see
        :class:`~mixln.evaluation.predictions.Predictions`. Writes the predictions to the training's folder. If there is an EMA of
        the weights, it is evaluated."""
        with self.final():
            predictions = self._predictions()
        if ranks.first():
            predictions.write(Path(self.args.output_dir or "."))
        return predictions.figures()

    def _predictions(self) -> Predictions:
        """The predictions for all images, in every process. Of k processes, each evaluates every k-th image; shares are padded to
        equal length with the first images."""
        images: Any = self.eval_dataset
        count, processes = len(images), ranks.size()
        share = [index % count for index in range(ranks.rank(), processes * math.ceil(count / processes), processes)]
        loader = DataLoader(
            Subset(images, share),
            batch_size=max(EVALUATED, self.args.per_device_eval_batch_size),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        model: Any = self.model
        was_training = model.training
        model.eval()
        rows = torch.cat([self._predict(model, self._prepare_inputs(batch)) for batch in loader])
        model.train(was_training)
        # dim=1 interleaves the processes, which restores the order of the images; the padding at the end is cut off.
        columns = torch.stack(ranks.gathered(rows.cpu()), dim=1).flatten(0, 1)[:count].double().numpy().T
        labels, predicted, confidence, top5, losses = columns
        return Predictions(
            labels=labels.astype(np.int64),
            predicted=predicted.astype(np.int64),
            confidence=confidence,
            top5=top5 > 0,
            losses=losses,
        )

    @staticmethod
    def _predict(model: nn.Module, batch: Any) -> Tensor:
        """Label, predicted class, its probability, whether the label is among the top 5, and loss of each image (B, 5)."""
        logits_BK, labels_B = model(pixel_values=batch["pixel_values"]).logits.float(), batch["labels"]
        probability_B, predicted_B = logits_BK.softmax(-1).max(-1)
        top5_B = (logits_BK.topk(min(5, logits_BK.shape[-1])).indices == labels_B[:, None]).any(-1)
        losses_B = F.cross_entropy(logits_BK, labels_B, reduction="none")
        return torch.stack([labels_B, predicted_B, probability_B, top5_B, losses_B], dim=-1)

    def save_state_in(self, checkpoint: Path) -> None:
        super().save_state_in(checkpoint)
        if self.average and self.args.should_save:
            self.average.save(checkpoint)

    def load_state_from(self, checkpoint: Path) -> None:
        super().load_state_from(checkpoint)
        if self.average:
            self.average.load(checkpoint)

    def final(self) -> AbstractContextManager[None]:
        return self.average.swapped() if self.average else super().final()


@dataclass(frozen=True)
class ImageObjective(Objective[VisionTrainSettings]):
    """Image classification: prepared images with their augmentation."""

    images: PreparedImages
    augment: AugmentSettings
    head: ClassVar[str] = "image-classification"

    @cached_property
    def companion(self) -> Any:
        info = self.images.info
        return ViTImageProcessorPil(
            size={"height": info.size, "width": info.size},
            image_mean=list(info.mean),
            image_std=list(info.deviation),
            do_convert_rgb=info.channels != 1,
        )

    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        config = copy.deepcopy(config)
        config.id2label = dict(enumerate(self.images.info.classes))
        config.label2id = {name: index for index, name in config.id2label.items()}
        return config

    def steps(self, settings: VisionTrainSettings) -> tuple[int, int]:
        return settings.total_steps(self.images.info.train_images), settings.batch_size

    def beginning(self, settings: VisionTrainSettings, seed: int) -> dict[str, Tensor]:
        images = self._shuffled(settings, seed)
        count = settings.micro_batch_size or settings.batch_size
        return self._collator(seed)([images[index] for index in range(count)])

    def watched(self) -> dict[str, Any]:
        # Evenly spaced, because a dataset may be ordered by class.
        images = CentreCrops(self.images.held_out, self.images.info.size)
        rows = [images[index * len(images) // WATCHED] for index in range(min(WATCHED, len(images)))]
        return {"pixel_values": self._collator(0)(rows)["pixel_values"]}

    def trainer(self, setup: TrainerSetup[VisionTrainSettings]) -> VisionTrainer:
        return VisionTrainer(
            args=TrainingArguments(
                **setup.parts.arguments,
                dataloader_num_workers=setup.engine.data_workers,
                train_sampling_strategy="sequential",  # the dataset is already shuffled
            ),
            smoothing=self.augment.label_smoothing,
            averaged=setup.settings.average,
            train_dataset=self._shuffled(setup.settings, setup.seed),
            eval_dataset=CentreCrops(self.images.held_out, self.images.info.size),
            data_collator=self._collator(setup.seed),
            model=setup.model,
            settings=setup.settings,
            warmup_steps=setup.parts.warmup_steps,
            callbacks=setup.parts.callbacks,
        )

    def judge(self, metrics: MetricsFile) -> Assessment:
        info = self.images.info
        names = [name for name in FIGURES if name != "top5" or len(info.classes) > 5]
        last = {name: curve[-1][1] for name in names if (curve := metrics.curve(f"eval_{name}"))}
        stalled = last["accuracy"] < info.majority + STALL_SHARE * (1 - info.majority)
        reason = (
            f"held-out accuracy {last['accuracy']:.1%} does not exceed the majority-class baseline {info.majority:.1%} by "
            f"{STALL_SHARE:.0%} of the baseline's errors or more"
        )
        return Assessment(status="stalled" if stalled else "finished", reason=reason if stalled else "", figures=last)

    def _collator(self, seed: int) -> ImageCollator:
        return ImageCollator(self.images.info, self.augment, seed)

    def _shuffled(self, settings: VisionTrainSettings, seed: int) -> ShuffledImages:
        draws = settings.batch_size * self.steps(settings)[0]
        size, crop = self.images.info.size, self.augment.crop
        return ShuffledImages(self.images.train, seed, draws, settings.batch_size, size, crop)


FIGURES = ("accuracy", "top5", "calibration")
"""Figures of an evaluation besides the loss; `top5` is omitted for five classes or fewer, where it is always 1."""
