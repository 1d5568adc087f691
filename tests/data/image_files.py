"""Folders of small images, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_images(folder: Path, *, count: int = 10, size: tuple[int, int] = (8, 8), seed: int = 0) -> Path:
    """A class a colour, with noise on it: `folder`/red/00.png and so on, of this height and width."""
    draw = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = draw.integers(-30, 30, (*size, 3))
            Image.fromarray(np.uint8(np.array(colour) + noise)).save(folder / name / f"{number:02}.png")
    return folder
