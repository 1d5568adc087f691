"""One trial of a comparison as records, and its folder.

trial.json           what the trial is, and of which experiment
metrics.jsonl, checkpoint-*/
result.json          written once, atomically: the only mark of a finished trial
checksums.json       length and SHA-256 of all of these, of the last checkpoint too: what has changed since is found when it is read
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mixln.errors import StoreError
from mixln.records import OPTIONAL, difference, to_json, unreadable
from mixln.runs.checksums import Sums, difference_of
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.metrics import METRICS, PREDICTIONS
from mixln.runs.outcome import Outcome
from mixln.runs.schema import Schema

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


def _changed(folder: Path, sums: Sums) -> str:
    """Compares lengths alone of weights, which are large; a whole checkpoint may be gone."""
    weights = {name: entry for name, entry in sums.items() if "/" in name and (folder / name).parent.is_dir()}
    # Without the answers, the figures are in the result all the same.
    small = {name: entry for name, entry in sums.items() if "/" not in name and name != PREDICTIONS}
    return difference_of(folder, small) or difference_of(folder, weights, content=False)


TRIAL_RUN = RunKind(
    noun="trial",
    request=Schema(kind="trial", file=TRIAL, record=StoredTrial),
    result=Schema(kind="trial-result", file=RESULT, record=TrialResult),
    again="run this trial again",
    changed=_changed,
)


def claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> None:
    """Makes a folder that of a trial: writes `trial.json`, or checks the one that is there.

    :param shared: what all trials of the experiment share; left out, it is neither written nor checked.
    :raises StoreError: if another trial lies there.
    """
    if not check_claim(folder, trial, shared):
        RunFolder(folder, TRIAL_RUN).begin(to_json(StoredTrial(**vars(trial), experiment=shared)))


def check_claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> bool:
    """True if the folder of a trial has its `trial.json`.

    :raises StoreError: if that is corrupt, or names another trial or, where it says which, another experiment.
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

    :raises StoreError: if its `trial.json` is corrupt.
    """
    return _read_stored(folder).trial


def _read_stored(folder: Path) -> StoredTrial:
    try:
        return TRIAL_RUN.request.read(folder / TRIAL)
    except (OSError, ValueError) as error:
        raise StoreError(
            unreadable(folder / TRIAL, error, "delete its folder and run its mixln compare again")
        ) from error


def read_result(folder: Path, remedy: str = "", *, trial: Trial | None = None) -> TrialResult | None:
    """The result in a trial's folder, `None` if there is none.

    :param remedy: what to do with a corrupt one, where deleting it is no remedy.
    :param trial: that it must be of.
    :raises StoreError: if it is corrupt, or what belongs to it has changed.
    """
    path = folder / RESULT
    if (result := RunFolder(folder, TRIAL_RUN).result(remedy=remedy)) is None:
        return None
    if not 0 <= result.step < 2**53:
        error = ValueError(f"step {str(result.step)[:20]} is none")
        raise StoreError(unreadable(path, error, remedy or f"delete it to {TRIAL_RUN.again}"))
    if trial is not None and result.trial != trial:
        raise StoreError(f"{path} belongs to another trial; delete it to run this one")
    if (folder / TRIAL).is_file() and (found := difference(to_json(read_trial(folder)), to_json(result.trial))):
        raise StoreError(
            f"{path} belongs to another trial than {TRIAL} beside it: {found}; put back the one that changed"
        )
    return result


def finish(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended, and binds it to what it leaves by checksums."""
    RunFolder(folder, TRIAL_RUN).finish(result, (METRICS, PREDICTIONS, f"checkpoint-{result.step}"))
