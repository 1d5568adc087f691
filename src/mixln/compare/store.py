"""The run store: one folder an experiment, one folder a trial in it.

experiment.json      everything needed to run it again
<trial>/trial.json   what the trial is, and of which experiment
<trial>/metrics.jsonl, checkpoint-*/
<trial>/result.json  written once, atomically: the only mark of a finished trial
<trial>/checksums.json   length and SHA-256 of all of these, of the last checkpoint too: what has changed since is found when it is read
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
from mixln.files import TEMPORARY, difference_of, free_name, write_atomic
from mixln.records import difference, from_json, read_json
from mixln.training import once
from mixln.training.metrics import ANSWERS, METRICS
from mixln.training.once import sums_of_result

EXPERIMENT, TRIAL, RESULT, LOCK = "experiment.json", "trial.json", "result.json", ".lock"
PARTS = {
    "settings": "",
    "text": "its text has changed since: ",
    "images": "its images have changed since: ",
    "model": "its model has changed since: ",
}
"""What all trials of an experiment share, and how a difference in it is announced."""
OF = "experiment"
"""Entry of `trial.json` with what the trials of its experiment share."""
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
                present.setdefault("versions", {})
                present.setdefault("machine", "")
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
        free_name(self.folder / EXPERIMENT)
        write_atomic(self.folder / EXPERIMENT, json.dumps(to_json({"schema": SCHEMA, **experiment}), indent=1))

    def trial_folder(self, trial: Trial) -> Path:
        """Where a trial lies; the folder's name says what it is."""
        return self.folder / f"{slug(trial.placement)}_lr{trial.learning_rate!r}_seed{trial.seed}"

    def add(self, trial: Trial, shared: dict[str, Any] | None = None) -> Path:
        """Makes a trial's folder with its `trial.json`, see :func:`claim`."""
        folder = self.trial_folder(trial)
        claim(folder, trial, shared)
        return folder

    def result(self, trial: Trial, shared: dict[str, Any] | None = None) -> TrialResult | None:
        """The result of a trial; `None` if it has not ended, or failed and is to be tried again.

        :param shared: what all trials of the experiment share.
        :raises StoreError: if `result.json` is damaged, or the folder holds another trial, or one of another experiment.
        """
        folder = self.trial_folder(trial)
        result = read_result(folder, trial=trial)
        check_claim(folder, trial, shared)
        return result


def claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> None:
    """Makes a folder that of a trial: writes `trial.json`, or checks the one that is there.

    :param shared: what all trials of the experiment share; left out, it is neither written nor checked.
    :raises StoreError: if another trial lies there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not check_claim(folder, trial, shared):
        of = {} if shared is None else {OF: to_json(shared)}
        free_name(folder / TRIAL)
        write_atomic(folder / TRIAL, json.dumps({**asdict(trial), **of}, indent=1))


def check_claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> bool:
    """True if the folder of a trial has its `trial.json`.

    :raises StoreError: if that is damaged, or names another trial or, where it says which, another experiment.
    """
    path = folder / TRIAL
    if not path.is_file():
        return False
    there = read_trial(folder)
    if found := difference(asdict(there), asdict(trial)):
        raise StoreError(f"{path} is not of this trial: {found}; put it back, or move {folder} away to run this one")
    of = read_json(path).get(OF)
    if of is None or shared is None:
        return True
    here = json.loads(json.dumps(to_json(shared)))
    for part in dict.fromkeys([*here, *of]):
        words = PARTS.get(part, "").replace("its", "its experiment's").replace("has changed since", "is another one")
        if found := difference(of.get(part) or {}, here.get(part) or {}):
            raise StoreError(
                f"{folder} belongs to another experiment: {words}{found}; move it away to run this trial here"
            )
    return True


def read_trial(folder: Path) -> Trial:
    """Which trial a folder holds.

    :raises StoreError: if its `trial.json` is damaged.
    """
    path = folder / TRIAL
    try:
        return from_json(Trial, read_json(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run its mixln compare again") from error


def read_result(
    folder: Path, remedy: str = "delete it to run this trial again", *, trial: Trial | None = None
) -> TrialResult | None:
    """The result in a trial's folder, `None` if there is none.

    Where its checksums are there, everything that belongs to it is held against them, but of the weights the lengths alone; a whole
    checkpoint may be gone.

    :param remedy: what to do with a damaged one.
    :param trial: that it must be of.
    :raises StoreError: if it is damaged, or what belongs to it has changed.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        result = trial_result(read_json(path))
        if not 0 <= result.step < 2**53:
            raise ValueError(f"step {str(result.step)[:20]} is none")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}); {remedy}") from error
    if trial is not None and result.trial != trial:
        raise StoreError(f"{path} belongs to another trial; delete it to run this one")
    again = f"put it back, or delete {path} to run this trial again"
    sums = sums_of_result(folder, again) or {}
    weights = {name: entry for name, entry in sums.items() if "/" in name and (folder / name).parent.is_dir()}
    # Without the answers, the figures are in the result all the same.
    small = {name: entry for name, entry in sums.items() if "/" not in name and name != ANSWERS}
    found = difference_of(folder, small)
    if found := found or difference_of(folder, weights, content=False):
        raise StoreError(f"trial {folder} is not as it was written: {found}; {again}")
    if (folder / TRIAL).is_file() and (found := difference(asdict(read_trial(folder)), asdict(result.trial))):
        raise StoreError(
            f"{path} belongs to another trial than {TRIAL} beside it: {found}; put back the one that changed"
        )
    return result


def write_result(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended."""
    write_atomic(folder / RESULT, _text(result))


def finish(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended, and binds it to what it leaves by checksums."""
    once.write_result(folder, _text(result), (TRIAL, METRICS, ANSWERS, f"checkpoint-{result.step}"))


def _text(result: TrialResult) -> str:
    return json.dumps(to_json(result), indent=1)


def slug(placement: str) -> str:
    """A placement's text as a folder name: `mix(0.25)` → `mix-0.25`, `hybrid**3,pre` → `hybrid-starx3_pre`."""
    text = re.sub(r"\*(?=\d)", "x", placement).replace("*", "-star").replace(",", "_").replace("/", "-of-")
    text = re.sub(r"[()]+", "-", text).strip("-").replace("-x", "x").replace("-_", "_")
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}-{hashlib.sha256(placement.encode()).hexdigest()[:8]}"


def _ours(path: Path) -> bool:
    """Whether a file is one that a comparison cut off at its very start leaves."""
    return path.name == LOCK or TEMPORARY.fullmatch(path.name) is not None
