"""The run store: one folder an experiment, one folder a trial in it, see :mod:`mixln.runs.trials`.

experiment.json      everything needed to run it again
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixln.records import OPTIONAL, difference, from_json, to_json
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.names import slug
from mixln.runs.provenance import Hardware, Provenance, former_hardware
from mixln.runs.schema import Schema
from mixln.runs.trials import PARTS, Trial, TrialResult, check_claim, claim, read_result

EXPERIMENT = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class ExperimentGrid:
    """The three axes."""

    placements: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The form of `experiment.json`. It has a text or images."""

    settings: dict[str, Any]
    grid: ExperimentGrid
    text: dict[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    images: dict[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    model: dict[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    versions: dict[str, str] = field(default_factory=dict, metadata=OPTIONAL)
    hardware: tuple[Hardware, ...] = field(default=(), metadata=OPTIONAL)
    commit: str | None = field(default=None, metadata=OPTIONAL)
    baseline: str | None = field(default=None, metadata=OPTIONAL)
    task: str = field(default="", metadata=OPTIONAL)


def _upgraded(entries: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had the hardware in words."""
    kept = {name: entry for name, entry in entries.items() if name != "machine"}
    return {**kept, "hardware": to_json(former_hardware(entries.get("machine", "")))}


EXPERIMENT_RUN = RunKind(
    noun="experiment",
    request=Schema(kind="experiment", file=EXPERIMENT, record=Experiment, upgrade=_upgraded),
)


def provenance_of(present: dict[str, Any]) -> Provenance:
    """The provenance of an experiment.

    :param present: what its `experiment.json` holds.
    """
    experiment = from_json(Experiment, present)
    return Provenance(
        versions=experiment.versions,
        commits=tuple(experiment.commit.split("; ")) if experiment.commit else (),
        hardware=experiment.hardware,
    )


class Store:
    """The folder of one experiment.

    :param folder: it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, RunFolder(folder, EXPERIMENT_RUN)

    def read(self) -> dict[str, Any] | None:
        """The experiment that lies here; `None` if the folder is free.

        :raises StoreError: if the folder holds something else.
        """
        present = self.run.request()
        return None if present is None else to_json(present)

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
            here = to_json(shared.get(part, present.get(part)))
            if found := difference(present.get(part) or {}, here or {}):
                raise self.run.another(f"{words}{found}")
        if present["grid"] == grid:
            return grid
        if not extend:
            axis = next(name for name in grid if present["grid"][name] != grid[name])
            raise self.run.another(
                f"{axis.replace('_', '-')} was {present['grid'][axis]}, now {grid[axis]}",
                "choose another --out, or add --extend to add to it",
            )
        return {name: list(dict.fromkeys([*present["grid"][name], *values])) for name, values in grid.items()}

    def create(self, experiment: dict[str, Any]) -> None:
        """Writes `experiment.json`, or its new grid."""
        self.run.begin(to_json(from_json(Experiment, to_json(experiment))))

    def trial_folder(self, trial: Trial) -> Path:
        """Where a trial lies; the folder's name says what it is."""
        return self.folder / f"{slug(trial.placement)}_lr{trial.learning_rate!r}_seed{trial.seed}"

    def add(self, trial: Trial, shared: dict[str, Any] | None = None) -> Path:
        """Makes a trial's folder with its `trial.json`, see :func:`~mixln.runs.trials.claim`."""
        folder = self.trial_folder(trial)
        claim(folder, trial, shared)
        return folder

    def result(self, trial: Trial, shared: dict[str, Any] | None = None) -> TrialResult | None:
        """The result of a trial; `None` if it has not ended, or failed and is to be tried again.

        :param shared: what all trials of the experiment share.
        :raises StoreError: if `result.json` is corrupt, or the folder holds another trial, or one of another experiment.
        """
        folder = self.trial_folder(trial)
        result = read_result(folder, trial=trial)
        check_claim(folder, trial, shared)
        return result
