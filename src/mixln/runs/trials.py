"""One trial of a comparison as records, and its folder.

trial.json           what the trial is, and of which experiment
metrics.jsonl, checkpoint-*/
result.json          written once, atomically: the only mark of a finished trial
checksums.json       length and SHA-256 of all of these, of the last checkpoint too: what has changed since is found when it is read
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mixln.errors import StoreError
from mixln.files import difference_of, free_name, write_atomic
from mixln.records import OPTIONAL, difference, read_record, to_json, unreadable
from mixln.runs import folder as job
from mixln.runs.folder import sums_of_result
from mixln.runs.metrics import ANSWERS, METRICS
from mixln.runs.outcome import Outcome

TRIAL, RESULT = "trial.json", "result.json"
PARTS = {
    "settings": "",
    "text": "its text has changed since: ",
    "images": "its images have changed since: ",
    "model": "its model has changed since: ",
}
"""What all trials of an experiment share, and how a difference in it is announced."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to train: a placement with an init, at one learning rate, from one seed."""

    placement: str
    init: str
    learning_rate: float
    seed: int

    @property
    def label(self) -> str:
        """What a line of news calls it."""
        return f"{self.placement}, lr {self.learning_rate:g}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class StoredTrial(Trial):
    """The form of `trial.json`.

    :param experiment: what all trials of its experiment share; `None` where that is not known.
    """

    experiment: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)

    @property
    def trial(self) -> Trial:
        """The trial alone."""
        return Trial(**{item.name: getattr(self, item.name) for item in fields(Trial)})


@dataclass(frozen=True, kw_only=True)
class TrialResult(Outcome):
    """How one trial ended: the outcome of its training, and which trial it was."""

    trial: Trial


def claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> None:
    """Makes a folder that of a trial: writes `trial.json`, or checks the one that is there.

    :param shared: what all trials of the experiment share; left out, it is neither written nor checked.
    :raises StoreError: if another trial lies there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not check_claim(folder, trial, shared):
        free_name(folder / TRIAL)
        write_atomic(folder / TRIAL, json.dumps(to_json(StoredTrial(**vars(trial), experiment=shared)), indent=1))


def check_claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> bool:
    """True if the folder of a trial has its `trial.json`.

    :raises StoreError: if that is damaged, or names another trial or, where it says which, another experiment.
    """
    path = folder / TRIAL
    if not path.is_file():
        return False
    there = _read_stored(folder)
    if found := difference(to_json(there.trial), to_json(trial)):
        raise StoreError(f"{path} is not of this trial: {found}; put it back, or move {folder} away to run this one")
    if (of := there.experiment) is None or shared is None:
        return True
    here = to_json(shared)
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
    return _read_stored(folder).trial


def _read_stored(folder: Path) -> StoredTrial:
    path = folder / TRIAL
    try:
        return read_record(StoredTrial, path)
    except (OSError, ValueError) as error:
        raise StoreError(unreadable(path, error, "delete its folder and run its mixln compare again")) from error


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
        result = read_record(TrialResult, path)
        if not 0 <= result.step < 2**53:
            raise ValueError(f"step {str(result.step)[:20]} is none")
    except (OSError, ValueError) as error:
        raise StoreError(unreadable(path, error, remedy)) from error
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
    if (folder / TRIAL).is_file() and (found := difference(to_json(read_trial(folder)), to_json(result.trial))):
        raise StoreError(
            f"{path} belongs to another trial than {TRIAL} beside it: {found}; put back the one that changed"
        )
    return result


def write_result(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended."""
    write_atomic(folder / RESULT, _text(result))


def finish(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended, and binds it to what it leaves by checksums."""
    job.write_result(folder, _text(result), (TRIAL, METRICS, ANSWERS, f"checkpoint-{result.step}"))


def _text(result: TrialResult) -> str:
    return json.dumps(to_json(result), indent=1)
