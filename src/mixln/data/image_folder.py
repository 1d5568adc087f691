"""Images from a folder for a given model."""

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
    """Images of a folder and its subfolders, spread evenly over their names, as the model's own processor prepares them.

    :param data: the folder. Where every image lies in a subfolder named as one of the model's classes, that is its label.
    :param processor: the model's image processor.
    :param config: the model's config, for the names of its classes and the size of an image.
    :param tokens: patches wanted; as many images as reach it, or all there are.
    :returns: batches of `pixel_values` (B, C, H, W) and, where there are labels, `labels` (B,); and what images they are.
    :raises DataError: if there is no such folder, no image in it, or an image that cannot be read.
    """
    import torch

    folder = path_of(data)
    if not folder.is_dir():
        raise DataError(f"data {data} is no folder, and the model takes images; name a folder of images with --data")
    paths = image_files(folder, FILE_TYPES)
    if not paths:
        raise DataError(f"data {data} holds no images ({', '.join(FILE_TYPES)}); name a folder that does")
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
            raise DataError(f"image {path} cannot be read: {first_line(error)}; mend or remove it") from error
        if tuple(pixels[-1].shape) != size:
            raise DataError(
                f"data {data}: the model's processor makes images of {tuple(pixels[-1].shape)}, its config wants {size}; "
                "mend size in preprocessor_config.json"
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
    """The same of what a comparison of image classifiers held out, as it evaluates them.

    :param settings: of its images; `fingerprint` is what they had.
    :param config: of one of its models.
    """
    import torch

    from mixln.data.augmentation import CentreCrops, ImageCollator
    from mixln.data.image_dataset import same_images
    from mixln.data.settings import AugmentSettings

    size = config.image_size
    images = same_images(settings, fingerprint, size=size, channels=config.num_channels, cache=cache)
    seen, made = CentreCrops(images.held_out, size), ImageCollator(images.info, AugmentSettings(), 0)
    chosen = torch.tensor(_spread(len(seen), config, tokens)).split(batch_size)
    batches = [made([seen[int(index)] for index in part]) for part in chosen]
    count = sum(map(len, chosen))
    return batches, ImageSample(description=images.info.description, images=count, labelled=True, held_out=True)


def _spread(count: int, config: Any, tokens: int) -> list[int]:
    """Which of `count` images to look at, spread evenly: as many as have so many patches, or all."""
    sides = zip(_pair(config.image_size), _pair(config.patch_size), strict=True)
    chosen = min(count, math.ceil(tokens / max(1, math.prod(side // patch for side, patch in sides))))
    return [index * count // chosen for index in range(chosen)]


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, which some configs give as one number."""
    return (size, size) if isinstance(size, int) else tuple(size)
