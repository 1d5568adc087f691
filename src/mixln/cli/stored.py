"""The settings of a stored experiment, as defaults of a command on the same folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mixln.cli.given import alternatives
from mixln.compare.settings import ExperimentSettings
from mixln.compare.store import EXPERIMENT, Store
from mixln.errors import MixlnError, StoreError, first_line
from mixln.records import from_json

SINGLE = {"placements": "placement", "learning_rates": "learning_rate", "seeds": "seed"}
"""Axis → the setting of a single training."""


def stored_in(out: Path) -> dict[str, Any] | None:
    """The experiment in a folder; `None` without one. A folder with other files is refused later, by the command itself.

    :raises StoreError: if it is corrupt.
    """
    return Store(out).read() if (out / EXPERIMENT).is_file() else None


def defaults(kind: type[Any], present: dict[str, Any], out: Path, options: Collection[str]) -> Any:
    """The settings of an experiment, as defaults of the options that are not given.

    :param kind: class of the settings.
    :param options: names of the given options; the stored values of their alternatives are not used.
    :raises StoreError: if this version of mixln does not accept the stored settings.
    """
    grid = present["grid"]
    axes = {**grid, **{one: grid[axis][0] for axis, one in SINGLE.items() if len(grid[axis]) == 1}}
    if "placements" not in options or "extend" in options:
        axes["baseline"] = present.get("baseline")
    names = {item.name for item in fields(kind)}  # a single training has no grid
    settings = {**present["settings"], **{name: value for name, value in axes.items() if name in names}}
    replaced = {name.replace("-", "_") for name in alternatives(options)}
    for part in ("text", "training"):
        if part in settings:
            settings[part] = {name: value for name, value in settings[part].items() if name not in replaced}
    try:
        made: ExperimentSettings = from_json(kind, settings, "settings")
    except MixlnError as error:
        raise StoreError(
            f"{out / EXPERIMENT} holds settings that cannot be used ({first_line(error)}); choose another --out"
        ) from error
    return replace(made, out=out)
