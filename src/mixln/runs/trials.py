"""One trial of a comparison as records, and its folder.

trial.json           the trial and its experiment
metrics.jsonl, checkpoint-*/
result.json          written once, atomically; it alone marks the trial as finished
checksums.json       length and SHA-256 of all of these, including the last checkpoint; verified when the result is read
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
    "text": "the text is different: ",
    "images": "the images are different: ",
    "model": "the model is different: ",
}
"""Part of the request that all trials of an experiment share → prefix of the message about a difference."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model to train: a placement with an init, at one learning rate, from one seed."""

    placement: str
    init: str
    learning_rate: float
    seed: int

    @property
    def label(self) -> str:
        """Name of the trial in log lines."""
        return f"{self.placement}, lr {self.learning_rate:g}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class StoredTrial(Trial):
    """Content of `trial.json`.

    :param experiment: the request that all trials of its experiment share; `None` if not known.
    """

    experiment: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)

    @property
    def trial(self) -> Trial:
        """The trial without its experiment."""
        return Trial(**{item.name: getattr(self, item.name) for item in fields(Trial)})


@dataclass(frozen=True, kw_only=True)
class TrialResult(Outcome):
    """Outcome of the training of one trial, and the trial itself."""

    trial: Trial


def _changed(folder: Path, sums: Sums) -> str:
    """Describes the first changed file. Of the checkpoint, which is large, only lengths are compared, and it may be deleted."""
    weights = {name: entry for name, entry in sums.items() if "/" in name and (folder / name).parent.is_dir()}
    # The predictions may be deleted too: the metrics made from them are in the result.
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
    """Claims a folder for a trial: writes `trial.json`, or checks the existing one.

    :param shared: the request that all trials of the experiment share; if `None`, it is neither written nor checked.
    :raises StoreError: if the folder belongs to another trial.
    """
    if not check_claim(folder, trial, shared):
        RunFolder(folder, TRIAL_RUN).begin(to_json(StoredTrial(**vars(trial), experiment=shared)))


def check_claim(folder: Path, trial: Trial, shared: dict[str, Any] | None = None) -> bool:
    """Whether the folder of a trial has its `trial.json`.

    :raises StoreError: if the file is corrupt, or names another trial or another experiment.
    """
    path = folder / TRIAL
    if not path.is_file():
        return False
    stored = _read_stored(folder)
    if changed := difference(to_json(stored.trial), to_json(trial)):
        raise StoreError(f"{path} is not of this trial: {changed}; restore it, or move {folder} away to run this one")
    if (experiment := stored.experiment) is None or shared is None:
        return True
    now = to_json(shared)
    for part in dict.fromkeys([*now, *experiment]):
        if changed := difference(experiment.get(part) or {}, now.get(part) or {}):
            raise StoreError(
                f"{folder} belongs to another experiment: {PARTS.get(part, '')}{changed}; move it away to run this trial here"
            )
    return True


def read_trial(folder: Path) -> Trial:
    """The trial whose folder this is.

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

    :param remedy: remedy for a corrupt result; by default to delete it.
    :param trial: the trial to which it must belong.
    :raises StoreError: if it is corrupt, or a file that belongs to it has changed.
    """
    path = folder / RESULT
    if (result := RunFolder(folder, TRIAL_RUN).result(remedy=remedy)) is None:
        return None
    # 2**53: JSON readers that use float64 lose integers above it.
    if not 0 <= result.step < 2**53:
        error = ValueError(f"step must lie in [0, 2⁵³), got {str(result.step)[:20]}")
        raise StoreError(unreadable(path, error, remedy or f"delete it to {TRIAL_RUN.again}"))
    if trial is not None and result.trial != trial:
        raise StoreError(f"{path} belongs to another trial; delete it to run this one")
    if (folder / TRIAL).is_file() and (changed := difference(to_json(read_trial(folder)), to_json(result.trial))):
        raise StoreError(
            f"{path} belongs to another trial than {TRIAL} in its folder: {changed}; restore the one that changed"
        )
    return result


def finish(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as finished, and seals its files with checksums."""
    RunFolder(folder, TRIAL_RUN).finish(result, (METRICS, PREDICTIONS, f"checkpoint-{result.step}"))
