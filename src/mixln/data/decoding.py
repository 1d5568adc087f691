"""Lists and decodes image files, which may be malformed or malicious."""

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
"""Largest image file that is read, bytes (512 MiB)."""
PROGRAMS = ("EPS",)
"""Formats that Pillow passes to Ghostscript, which executes them as programs."""


def image_files(folder: Path, types: Collection[str]) -> list[Path]:
    """The images in a folder and its subfolders, sorted by path; see :func:`mixln.data.listing.files_in`.

    :param types: file name suffixes in lower case.
    :raises DataError: if one is not a regular file or links to a file outside the folder, or if a subfolder is a link.
    """
    if linked := next(iter(linked_folders(folder)), None):
        raise DataError(f"image folder {linked} is a link, and links to folders are not followed; replace it by a copy")
    return files_in(folder, lambda path: path.suffix.lower() in types, "image")


def open_image(source: Path | bytes, *, upright: bool = True) -> Image:
    """Reads an image completely, so that a truncated one is detected here.

    Pillow knows the size before it allocates memory: an image with more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million) is refused.

    :param upright: whether to rotate it according to its EXIF orientation.
    :raises ValueError: if it cannot be read, with a message of one line.
    """
    from PIL import Image, ImageOps

    try:
        if (size := len(source) if isinstance(source, bytes) else check_regular(source, "image")) > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than the limit of {MOST_BYTES:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.format in PROGRAMS:
                    raise ValueError("it is a PostScript program")
                image.load()
                return ImageOps.exif_transpose(image) if upright else image.copy()
    except Exception as error:  # Pillow's decoders raise many types for a corrupt file
        raise ValueError(first_line(error)) from error
