"""Loads images for measuring a given model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.data.decoding import image_files, open_image
from mixln.data.documents import path_of
from mixln.data.listing import printable
from mixln.data.samples import ImageSample
from mixln.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from mixln.data.settings import ImageSettings

FILE_TYPES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def image_batches(
    data: str, processor: Any, config: Any, *, batch_size: int, tokens: int
) -> tuple[list[dict[str, Tensor]], ImageSample]:
    """Images of a folder and its subfolders, spread evenly over the sorted names, prepared by the model's own processor.

    :param data: the folder. If every image is in a subfolder with the name of one of the model's classes, that class is its label.
    :param processor: the model's image processor.
    :param config: the model's config, for the names of its classes and the size of an image.
    :param tokens: number of patches wanted; determines the number of images, at most all.
    :returns: batches of `pixel_values` (B, C, H, W) and, if there are labels, `labels` (B,); and a record of the images.
    :raises DataError: if there is no such folder, no image in it, or an image that cannot be read.
    """
    import torch

    folder = path_of(data)
    if not folder.is_dir():
        raise DataError(f"data {data} must be a folder of images, because the model takes images; name one with --data")
    paths = image_files(folder, FILE_TYPES)
    if not paths:
        raise DataError(f"data {data} holds no images ({', '.join(FILE_TYPES)}); name one that does")
    size = (config.num_channels, *_pair(config.image_size))
    paths = [paths[index] for index in _spread(len(paths), config, tokens)]
    classes = {str(name): index for name, index in (config.label2id or {}).items()}
    labelled = all(path.parent.name in classes and path.parent != folder for path in paths)
    pixels = []
    for path in paths:
        try:
            image = open_image(path, upright=False).convert("RGB")
            pixels.append(processor(images=image, return_tensors="pt")["pixel_values"][0])
        except (OSError, ValueError) as error:
            raise DataError(f"image {path} cannot be read: {first_line(error)}; correct or remove it") from error
        if tuple(pixels[-1].shape) != size:
            raise DataError(
                f"data {data}: the model's processor makes images of shape {tuple(pixels[-1].shape)}, but its config has {size}; "
                "correct size in preprocessor_config.json"
            )
    batches = []
    for start in range(0, len(paths), batch_size):
        batch = {"pixel_values": torch.stack(pixels[start : start + batch_size])}
        if labelled:
            batch["labels"] = torch.tensor([classes[path.parent.name] for path in paths[start : start + batch_size]])
        batches.append(batch)
    name = printable(folder.name)
    return batches, ImageSample(description=name, images=len(paths), labelled=labelled, held_out=False)


def held_out_batches(
    settings: ImageSettings,
    fingerprint: str,
    config: Any,
    *,
    batch_size: int,
    tokens: int,
    cache: Path,
) -> tuple[list[dict[str, Tensor]], ImageSample]:
    """Batches of the held-out images of a comparison of image classifiers, prepared as in its evaluation.

    :param settings: the comparison's images; `fingerprint` is that of the prepared images.
    :param config: config of one of its models.
    """
    import torch

    from mixln.data.augmentation import CentreCrops, ImageCollator
    from mixln.data.image_dataset import same_images
    from mixln.data.settings import AugmentSettings

    size = config.image_size
    images = same_images(settings, fingerprint, size=size, channels=config.num_channels, cache=cache)
    rows, collate = CentreCrops(images.held_out, size), ImageCollator(images.info, AugmentSettings(), 0)
    chosen = torch.tensor(_spread(len(rows), config, tokens)).split(batch_size)
    batches = [collate([rows[int(index)] for index in part]) for part in chosen]
    count = sum(map(len, chosen))
    return batches, ImageSample(description=images.info.description, images=count, labelled=True, held_out=True)


def _spread(count: int, config: Any, tokens: int) -> list[int]:
    """Indices of evenly spread images, enough for `tokens` patches, at most `count`."""
    sides = zip(_pair(config.image_size), _pair(config.patch_size), strict=True)
    chosen = min(count, math.ceil(tokens / max(1, math.prod(side // patch for side, patch in sides))))
    return [index * count // chosen for index in range(chosen)]


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, which some configs give as a single number."""
    return (size, size) if isinstance(size, int) else tuple(size)
