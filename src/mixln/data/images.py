"""Images from a folder for a given model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

FILE_TYPES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def image_batches(
    data: str, processor: Any, config: Any, *, batch_size: int, tokens: int
) -> tuple[list[dict[str, Tensor]], str, bool]:
    """Images of a folder and its subfolders, spread evenly over their names, as the model's own processor prepares them.

    :param data: the folder. Where every image lies in a subfolder named as one of the model's classes, that is its label.
    :param processor: the model's image processor.
    :param config: the model's config, for the names of its classes and the size of an image.
    :param tokens: patches wanted; as many images as reach it, or all there are.
    :returns: batches of `pixel_values` (B, C, H, W) and, where there are labels, `labels` (B,); a description; whether there are.
    :raises DataError: if there is no such folder, no image in it, or an image that cannot be read.
    """
    import torch
    from PIL import Image

    folder = Path(data)
    if not folder.is_dir():
        raise DataError(f"data {data} is no folder, and the model takes images; name a folder of images with --data")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FILE_TYPES)
    if not paths:
        raise DataError(f"data {data} holds no images ({', '.join(FILE_TYPES)}); name a folder that does")
    size = (config.num_channels, *_pair(config.image_size))
    patches = math.prod(side // patch for side, patch in zip(size[1:], _pair(config.patch_size), strict=True))
    count = min(len(paths), math.ceil(tokens / max(1, patches)))
    paths = [paths[index * len(paths) // count] for index in range(count)]
    classes = {str(name): index for name, index in (config.label2id or {}).items()}
    labelled = all(path.parent.name in classes and path.parent != folder for path in paths)
    pixels = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pixels.append(processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0])
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
    return batches, f"{len(paths)} images of {folder.name}{', labelled' if labelled else ''}", labelled


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, which some configs give as one number."""
    return (size, size) if isinstance(size, int) else tuple(size)
