"""The run store: one folder an experiment, one folder a trial in it.

experiment.json      everything needed to run it again
<trial>/trial.json   what the trial is
<trial>/metrics.jsonl, checkpoint-*/
<trial>/result.json  written once, atomically: the only mark of a finished trial
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixln.compare.results import Trial, TrialResult, to_json, trial_result
from mixln.errors import StoreError
from mixln.files import write_atomic
from mixln.records import difference, from_json, read_json

EXPERIMENT, TRIAL, RESULT, LOCK = "experiment.json", "trial.json", "result.json", ".lock"
PARTS = {
    "settings": "",
    "text": "its text has changed since: ",
    "images": "its images have changed since: ",
    "model": "its model has changed since: ",
}
"""What all trials of an experiment share, and how a difference in it is announced."""
LONGEST = 120
"""Characters of a placement in a folder's name."""
SCHEMA = 1
"""Of `experiment.json`; it changes when an older mixln could misread it."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The three axes."""

    placements: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The form of `experiment.json`, to hold a file against."""

    settings: dict[str, Any]
    grid: Grid
    text: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    commit: str | None = None
    baseline: str = ""


class Store:
    """The folder of one experiment.

    :param folder: it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[str, Any] | None:
        """The experiment that lies here; `None` if the folder is free.

        :raises StoreError: if the folder holds something else.
        """
        path = self.folder / EXPERIMENT
        if path.is_file():
            try:
                present = read_json(path)
                if present["schema"] != SCHEMA:
                    raise ValueError(f"schema {present['schema']}, this mixln reads {SCHEMA}")
                from_json(Experiment, present)
                return present
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{path} is damaged ({error}); choose another --out, or delete the folder") from error
        if self.folder.exists() and (not self.folder.is_dir() or any(not _ours(p) for p in self.folder.iterdir())):
            raise StoreError(f"out {self.folder} is not empty and holds no experiment; choose another --out")
        return None

    def check(self, shared: dict[str, Any], grid: dict[str, list[Any]], *, extend: bool) -> dict[str, list[Any]]:
        """Compares an experiment with what lies here, and returns the grid to run.

        :param shared: what all trials share, as far as it is known yet: settings, then text and model too.
        :param grid: axis → values.
        :param extend: allow the grid to grow; an empty axis then stays as it is.
        :raises StoreError: if another experiment lies here; it names the first difference.
        """
        present = self.read()
        if present is None:
            return grid
        for part, words in PARTS.items():
            here = json.loads(json.dumps(to_json(shared.get(part, present.get(part)))))
            if found := difference(present.get(part) or {}, here or {}):
                raise StoreError(
                    f"out {self.folder} holds another experiment: {words}{found}; choose another --out, or the same settings"
                )
        if present["grid"] == grid:
            return grid
        if not extend:
            axis = next(name for name in grid if present["grid"][name] != grid[name])
            raise StoreError(
                f"out {self.folder} holds another experiment: {axis.replace('_', '-')} there {present['grid'][axis]}, "
                f"here {grid[axis]}; choose another --out, or add --extend to add to it"
            )
        return {name: list(dict.fromkeys([*present["grid"][name], *values])) for name, values in grid.items()}

    def create(self, experiment: dict[str, Any]) -> None:
        """Writes `experiment.json`, or its new grid."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / EXPERIMENT, json.dumps(to_json({"schema": SCHEMA, **experiment}), indent=1))

    def trial_folder(self, trial: Trial) -> Path:
        """Where a trial lies; the folder's name says what it is."""
        return self.folder / f"{slug(trial.placement)}_lr{trial.learning_rate!r}_seed{trial.seed}"

    def add(self, trial: Trial) -> Path:
        """Makes a trial's folder with its `trial.json`."""
        folder = self.trial_folder(trial)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / TRIAL).is_file():
            write_atomic(folder / TRIAL, json.dumps(asdict(trial), indent=1))
        return folder

    def result(self, trial: Trial) -> TrialResult | None:
        """The result of a trial; `None` if it has not ended, or failed and is to be tried again.

        :raises StoreError: if `result.json` is damaged.
        """
        folder = self.trial_folder(trial)
        result = read_result(folder)
        if result is not None and result.trial != trial:
            raise StoreError(f"{folder / RESULT} belongs to another trial; delete it to run this one")
        return result


def read_result(folder: Path) -> TrialResult | None:
    """The result in a trial's folder, `None` if there is none.

    :raises StoreError: if it is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        return trial_result(read_json(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it to run this trial again") from error


def write_result(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended."""
    write_atomic(folder / RESULT, json.dumps(to_json(result), indent=1))


def slug(placement: str) -> str:
    """A placement's text as a folder name: `mix(0.25)` → `mix-0.25`, `hybrid**3,pre` → `hybrid-starx3_pre`."""
    text = re.sub(r"\*(?=\d)", "x", placement).replace("*", "-star").replace(",", "_").replace("/", "-of-")
    text = re.sub(r"[()]+", "-", text).strip("-").replace("-x", "x").replace("-_", "_")
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}-{hashlib.sha256(placement.encode()).hexdigest()[:8]}"


def _ours(path: Path) -> bool:
    """Whether a file is one that a comparison cut off at its very start leaves."""
    return path.name == LOCK or path.name.startswith(f".{EXPERIMENT}.")
