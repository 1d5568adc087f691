"""Training an image classifier from its initial values. Shapes: B batch, C channels, S height and width, K classes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import PreTrainedConfig, TrainingArguments, ViTImageProcessorPil

from mixln.data.augmentation import Batches, Centres, Draws
from mixln.data.pictures import Images
from mixln.data.settings import AugmentSettings
from mixln.training import ranks
from mixln.training.metrics import MetricsFile
from mixln.training.scratch import Material, ScratchTrainer
from mixln.training.settings import EngineSettings, VisionTrainSettings

BINS = 15
"""Of the expected calibration error (arXiv:1706.04599)."""
STALL_MARGIN = 0.02
"""A trial whose held-out accuracy is less than this above that of guessing the most frequent class is `stalled`."""
WATCHED = 8
"""Held-out images that the residual stream is measured on."""


class VisionTrainer(ScratchTrainer):
    """Cross-entropy with smoothed or mixed labels, on images in the order in which they are drawn.

    :param smoothing: share of each label that is spread evenly over all classes.
    """

    def __init__(self, *, smoothing: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smoothing = smoothing
        self.model_accepts_loss_kwargs = False  # each part of a batch gives its own mean

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type] # it is in its order already

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
        """Means over the held-out images: `loss` (nats an image, labels neither smoothed nor mixed), `accuracy` with its standard
        error, `top5`, and `calibration`, the expected calibration error with 15 bins of equal width."""
        model: Any = self.model
        was_training = model.training
        model.eval()
        sums = torch.zeros(3 + 3 * BINS, dtype=torch.float64)
        for batch in map(self._prepare_inputs, self.get_eval_dataloader()):
            logits = model(pixel_values=batch["pixel_values"]).logits.float()
            sums += tallied(logits.cpu(), batch["labels"].cpu())  # not every device has float64
        model.train(was_training)
        loss, _, top5, *bins = ranks.total(sums).tolist()
        counts, right, trusted = (bins[kind * BINS : (kind + 1) * BINS] for kind in range(3))
        total = sum(counts)
        accuracy = sum(right) / total
        return {
            "loss": loss / total,
            "accuracy": accuracy,
            "accuracy_error": math.sqrt(accuracy * (1 - accuracy) / total),
            "top5": top5 / total,
            "calibration": sum(abs(hits - sure) for hits, sure in zip(right, trusted, strict=True)) / total,
        }


def tallied(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Sums over images: loss, right among the first one and the first five, then of each bin of confidence the images, the right
    ones and their confidence; float64. A label below 0 is no image."""
    used_B = labels_B >= 0
    logits_BK, labels_B = logits_BK[used_B], labels_B[used_B]
    places_B5 = logits_BK.topk(min(5, logits_BK.shape[-1])).indices
    hits_B5 = places_B5 == labels_B[:, None]
    confidence_B = logits_BK.softmax(-1).amax(-1).double()
    bin_B = (confidence_B * BINS).long().clamp(max=BINS - 1)
    right_B = hits_B5[:, 0].double()
    each = (torch.ones_like(confidence_B), right_B, confidence_B)
    bins = [
        torch.zeros(BINS, dtype=torch.float64, device=logits_BK.device).index_add_(0, bin_B, value) for value in each
    ]
    loss = F.cross_entropy(logits_BK, labels_B, reduction="sum").double()
    return torch.cat([torch.stack([loss, right_B.sum(), hits_B5.any(-1).sum().double()]), *bins])


@dataclass(frozen=True)
class Classified(Material[VisionTrainSettings]):
    """Prepared images."""

    images: Images
    augment: AugmentSettings
    head: ClassVar[str] = "image-classification"

    @cached_property
    def companion(self) -> Any:
        info, grey = self.images.info, self.images.info.channels == 1
        return ViTImageProcessorPil(
            size={"height": info.size, "width": info.size},
            image_mean=list(info.mean),
            image_std=list(info.deviation),
            do_convert_rgb=not grey,
        )

    def fitted(self, config: PreTrainedConfig) -> PreTrainedConfig:
        config = copy.deepcopy(config)
        config.id2label = dict(enumerate(self.images.info.classes))
        config.label2id = {name: index for index, name in config.id2label.items()}
        return config

    def steps(self, settings: VisionTrainSettings) -> tuple[int, int]:
        return settings.total_steps(self.images.info.train_images), settings.batch_size

    def beginning(self, settings: VisionTrainSettings, seed: int) -> dict[str, Tensor]:
        drawn = self._drawn(settings, seed)
        count = settings.micro_batch_size or settings.batch_size
        return self._batches(seed)([drawn[draw] for draw in range(count)])

    def watched(self) -> dict[str, Any]:
        seen = Centres(self.images.held_out, self.images.info.size)
        rows = [seen[index * len(seen) // WATCHED] for index in range(min(WATCHED, len(seen)))]
        return {"pixel_values": self._batches(0)(rows)["pixel_values"]}

    def trainer(
        self,
        chosen: dict[str, Any],
        *,
        seed: int,
        engine: EngineSettings,
        resume: Path | None,
        settings: VisionTrainSettings,
        **common: Any,
    ) -> VisionTrainer:
        return VisionTrainer(
            args=TrainingArguments(**chosen, dataloader_num_workers=engine.data_workers),
            smoothing=self.augment.label_smoothing,
            train_dataset=self._drawn(settings, seed),
            eval_dataset=Centres(self.images.held_out, self.images.info.size),
            data_collator=self._batches(seed),
            settings=settings,
            **common,
        )

    def judged(self, metrics: MetricsFile) -> dict[str, Any]:
        last = {name: curve[-1][1] for name in FIGURES if (curve := metrics.curve(f"eval_{name}"))}
        floor = self.images.info.majority
        stalled = last["accuracy"] <= floor + STALL_MARGIN
        reason = f"held-out accuracy {last['accuracy']:.1%} is no better than the most frequent class's {floor:.1%}"
        return {"status": "stalled" if stalled else "finished", "reason": reason if stalled else "", "figures": last}

    def _batches(self, seed: int) -> Batches:
        return Batches(self.images.info, self.augment, seed)

    def _drawn(self, settings: VisionTrainSettings, seed: int) -> Draws:
        draws = settings.batch_size * self.steps(settings)[0]
        size, crop = self.images.info.size, self.augment.crop
        return Draws(self.images.train, seed, draws, settings.batch_size, size, crop)


FIGURES = ("accuracy", "top5", "calibration")
"""What an evaluation finds beside the loss."""
