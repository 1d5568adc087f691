"""Shuffling, cropping, augmentation and mixing of training images, as a function of the seed and the number of the draw.

The k-th image drawn and its augmentation are the same for every placement and number of processes, and after a resumption.
Shapes: B batch, C channels, S height and width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mixln.data.image_dataset import ImageDataset, ImagesInfo
from mixln.data.settings import AugmentSettings
from mixln.errors import SettingsError

RATIO = (3 / 4, 4 / 3)
"""Range of width / height of a random crop, as in torchvision and timm."""
TRIES = 10
"""Attempts to draw a crop that fits into the image, as in torchvision."""
CENTRE = 0.875
"""Centre crop for evaluation as a share of the shorter side, for images of another size than the model's; as in the ConvNeXt recipe."""
OPERATIONS = 2
"""RandAugment operations per image."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class ShuffledImages(Dataset[dict[str, Any]]):
    """Training images in shuffled order, each once per epoch. The last batch of an epoch is dropped if it is not full.

    :param seed: determines the order and the crops.
    :param draws: number of images to draw, over any number of epochs.
    :param crop: smallest share of the area that a crop keeps.
    """

    pictures: ImageDataset
    seed: int
    draws: int
    batch: int
    size: int
    crop: float

    def __len__(self) -> int:
        return self.draws

    def __getitem__(self, draw: int) -> dict[str, Any]:
        """`pixel_values` (C, S, S) uint8, `labels` and `draw`."""
        epoch, place = divmod(draw, len(self.pictures) // self.batch * self.batch)
        index = int(_order(len(self.pictures), self.seed, epoch)[place])
        picture = self.pictures.picture(index)
        if self.crop < 1 or picture.size != (self.size, self.size):
            box = _crop(picture.size, self.crop, np.random.default_rng([self.seed, 1, draw]))
            picture = _resized(picture, self.size, box)
        return {"pixel_values": _channels_first(picture), "labels": int(self.pictures.labels[index]), "draw": draw}


@dataclass(frozen=True)
class CentreCrops(Dataset[dict[str, Any]]):
    """Evaluation images: unchanged if they have the model's size, otherwise centre-cropped and resized."""

    pictures: ImageDataset
    size: int

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`pixel_values` (C, S, S) uint8 and `labels`."""
        picture = self.pictures.picture(index)
        if picture.size != (self.size, self.size):
            picture = _resized(picture, self.size, _middle(picture.size, CENTRE))
        return {"pixel_values": _channels_first(picture), "labels": int(self.pictures.labels[index])}


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def _crop(size: tuple[int, int], least: float, draw: np.random.Generator) -> Box:
    """A random box with at least the share `least` of the area and a ratio within :data:`RATIO`; the centre square if none fits."""
    width, height = size
    low, high = map(math.log, RATIO)
    for _ in range(TRIES):
        area, ratio = width * height * draw.uniform(least, 1), math.exp(draw.uniform(low, high))
        wide, tall = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and tall <= height:
            left, top = draw.uniform(0, width - wide), draw.uniform(0, height - tall)
            return left, top, left + wide, top + tall
    return _middle(size, 1)


def _middle(size: tuple[int, int], share: float) -> Box:
    """The centre square with this share of the shorter side."""
    width, height = size
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _resized(picture: Image.Image, size: int, box: Box) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _channels_first(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


@dataclass(frozen=True)
class ImageCollator:
    """Collates and normalises images; those of :class:`ShuffledImages`, which have a `draw`, are augmented and mixed."""

    info: ImagesInfo
    augment: AugmentSettings
    seed: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`pixel_values` (B, C, S, S) float32, and `labels`: (B,), or (B, K) if images were mixed."""
        pixels = torch.stack([row["pixel_values"] for row in rows]).float() / 255
        labels = torch.tensor([row["labels"] for row in rows])
        if "draw" in rows[0]:
            chosen = self.augment
            with drawn(self.seed, rows[0]["draw"]):
                for change in self._changes:
                    pixels = change(pixels)
                alphas = {mix: alpha for mix, alpha in ((blended, chosen.mixup), (pasted, chosen.cutmix)) if alpha}
                if alphas:
                    mix = list(alphas)[int(torch.randint(len(alphas), ()))]
                    pixels, labels = mixed(mix, alphas[mix], pixels, labels, len(self.info.classes))
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.info.mean, self.info.deviation))
        return {"pixel_values": (pixels - mean) / deviation, "labels": labels}

    @cached_property
    def _changes(self) -> list[Any]:
        chosen = self.augment
        check_augmentation(chosen)
        if not _needs_kornia(chosen):
            return []
        import kornia.augmentation as kornia
        from kornia.augmentation.auto import RandAugment

        changes: list[Any] = []
        if chosen.flip:
            changes.append(kornia.RandomHorizontalFlip(p=chosen.flip))
        if chosen.rand_augment:
            change = RandAugment(n=OPERATIONS, m=chosen.rand_augment)
            # Image by image: for a batch, kornia draws one set of operations for all. It supports colour images only.
            changes.append(lambda pixels: torch.cat([_in_colour(change, image[None]) for image in pixels]))
        if chosen.erasing:
            # Scale and ratio as in timm.
            changes.append(kornia.RandomErasing(p=chosen.erasing, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3)))
        return changes


def _in_colour(change: Any, pixels: Tensor) -> Tensor:
    """Applies an augmentation for colour images. A grey image (1, 1, S, S) is expanded to three channels and averaged afterwards."""
    if pixels.shape[1] == 3:
        return change(pixels)
    return change(pixels.expand(-1, 3, -1, -1)).mean(1, keepdim=True)


Mix = Callable[[Tensor, Tensor, float], tuple[Tensor, float]]
"""(images, images to mix in, share of the first) → mixed images (B, C, S, S) and the actual share of the first."""


def blended(pixels: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """Mixup (arXiv:1710.09412): share · x + (1 − share) · y."""
    return share * pixels + (1 - share) * others, share


def pasted(pixels: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """CutMix (arXiv:1905.04899): pastes a rectangle of y, with about (1 − share) of the area, onto x, clipped at the edges."""
    size = pixels.shape[-1]
    half = size * math.sqrt(1 - share) / 2
    (top, bottom), (left, right) = (
        (max(0, round(centre - half)), min(size, round(centre + half))) for centre in (torch.rand(2) * size).tolist()
    )
    result = pixels.clone()
    result[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return result, 1 - (bottom - top) * (right - left) / size**2


def mixed(mix: Mix, alpha: float, pixels: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mixes each image with another one of its batch, all with the same share, drawn from Beta(α, α).

    :returns: images (B, C, S, S) and labels (B, K), float32.
    """
    other = torch.randperm(len(pixels))
    drawn_share = torch.distributions.Beta(alpha, alpha).sample().item()
    pixels, share = mix(pixels, pixels[other], drawn_share)
    targets = F.one_hot(labels, classes).float()
    return pixels, share * targets + (1 - share) * targets[other]


@contextmanager
def drawn(*numbers: int) -> Iterator[None]:
    """Context in which torch's CPU generator is seeded from these numbers; its state is restored afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def check_augmentation(settings: AugmentSettings) -> None:
    """:raises SettingsError: if the augmentation needs kornia, which is not installed."""
    if find_spec("kornia") is None and _needs_kornia(settings):
        raise SettingsError(
            'flip, rand-augment and erasing need the package kornia; run pip install "mixln[vision]", or set them to 0'
        )


def _needs_kornia(settings: AugmentSettings) -> bool:
    return bool(settings.flip or settings.rand_augment or settings.erasing)
