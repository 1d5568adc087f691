"""Image files: which of a folder are read, and how."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mixln.data.listing import check_regular, files_in, linked_folders
from mixln.errors import DataError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 2**29
"""Bytes of an image file at most."""
PROGRAMS = ("EPS",)
"""Formats that are programs: Pillow gives them to Ghostscript to run."""


def image_files(folder: Path, types: Collection[str]) -> list[Path]:
    """The images in a folder and its subfolders, in the order of their paths; see :func:`mixln.data.listing.files_in`.

    :param types: what their names end in, in small letters.
    :raises DataError: if one is no regular file, or leads out of the folder, or a subfolder is a link.
    """
    if linked := next(iter(linked_folders(folder)), None):
        raise DataError(
            f"image folder {linked} is a link, and links to folders are not followed; put a copy in its place"
        )
    return files_in(folder, lambda path: path.suffix.lower() in types, "image")


def open_image(source: Path | bytes, *, upright: bool = True) -> Image:
    """An image that is wholly read, so that a truncated one is found here.

    Pillow knows the size before it takes memory for it: an image of more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million) is not read.

    :param upright: turn it as its EXIF entry says.
    :raises ValueError: whatever is wrong with it, on one line.
    """
    from PIL import Image, ImageOps

    try:
        if (size := len(source) if isinstance(source, bytes) else check_regular(source, "image")) > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.format in PROGRAMS:
                    raise ValueError("it is a PostScript program")
                image.load()
                return ImageOps.exif_transpose(image) if upright else image.copy()
    except Exception as error:  # Pillow's readers raise whatever they like for a damaged file
        raise ValueError(first_line(error)) from error
