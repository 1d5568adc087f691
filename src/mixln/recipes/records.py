"""The form of a recipe; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixln.compare.settings import GridSettings

Scale = Literal["cpu", "paper"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One comparison of a recipe, with what was published of it.

    :param name: of the model, as the paper writes it; also the name of its folder.
    :param settings: complete, but for where it lies.
    :param published: placement → the published number, in the unit of the comparison's measure.
    """

    name: str
    settings: GridSettings
    published: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One table or figure.

    :param title: what it is.
    :param source: paper and place.
    :param reading: what of it is ours, where the paper leaves something open.
    :param scaled: what the small scale makes smaller, and how long it takes.
    :param runs: scale and where the data lie (`None`: where the recipe looks for itself) → the comparisons.
    """

    title: str
    source: str
    reading: str
    scaled: str
    runs: Callable[[Scale, str | None], tuple[Run, ...]]
