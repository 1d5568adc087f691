"""The folder of an experiment, with a subfolder for each trial (see :mod:`mixln.runs.trials`).

experiment.json      everything needed to run the experiment again
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixln.records import OPTIONAL, difference, from_json, to_json
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.former import former_hardware
from mixln.runs.names import slug
from mixln.runs.provenance import Hardware, Provenance
from mixln.runs.schema import Schema
from mixln.runs.trials import PARTS, Trial, TrialResult, check_claim, claim, read_result

EXPERIMENT = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class ExperimentGrid:
    """The axes of an experiment."""

    placements: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The content of `experiment.json`. Either `text` or `images` is set, depending on the task."""

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
    """Version 1 described the hardware in words."""
    others = {name: entry for name, entry in entries.items() if name != "machine"}
    return {**others, "hardware": to_json(former_hardware(entries.get("machine", "")))}


EXPERIMENT_RUN = RunKind(
    noun="experiment",
    request=Schema(kind="experiment", file=EXPERIMENT, record=Experiment, upgrades=(_upgraded,)),
)


def provenance_of(present: dict[str, Any]) -> Provenance:
    """The provenance of an experiment.

    :param present: content of its `experiment.json`.
    """
    experiment = from_json(Experiment, present)
    return Provenance(
        versions=experiment.versions,
        commits=tuple(experiment.commit.split("; ")) if experiment.commit else (),
        hardware=experiment.hardware,
    )


class Store:
    """The folder of one experiment.

    :param folder: need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, RunFolder(folder, EXPERIMENT_RUN)

    def read(self) -> dict[str, Any] | None:
        """The content of `experiment.json`; `None` if the folder is empty or does not exist.

        :raises StoreError: if the folder holds something else.
        """
        present = self.run.request()
        return None if present is None else to_json(present)

    def check(self, shared: dict[str, Any], grid: dict[str, list[Any]], *, extend: bool) -> dict[str, list[Any]]:
        """Compares a request with the experiment in the folder, and returns the grid to run.

        :param shared: the part of the request that all trials share, as far as it is known: first settings, later also data and model.
        :param grid: axis → values.
        :param extend: allow the grid to grow; an empty axis keeps its values.
        :raises StoreError: if the folder holds a different experiment; names the first difference.
        """
        present = self.read()
        if present is None:
            return grid
        for part, words in PARTS.items():
            here = to_json(shared.get(part, present.get(part)))  # a part that is not known yet is not compared
            if change := difference(present.get(part) or {}, here or {}):
                raise self.run.another(f"{words}{change}")
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
        """Writes `experiment.json`."""
        self.run.begin(to_json(from_json(Experiment, to_json(experiment))))

    def trial_folder(self, trial: Trial) -> Path:
        """Folder of a trial, named after placement, learning rate and seed."""
        return self.folder / f"{slug(trial.placement)}_lr{trial.learning_rate!r}_seed{trial.seed}"

    def add(self, trial: Trial, shared: dict[str, Any] | None = None) -> Path:
        """Creates a trial's folder with its `trial.json`, see :func:`~mixln.runs.trials.claim`."""
        folder = self.trial_folder(trial)
        claim(folder, trial, shared)
        return folder

    def result(self, trial: Trial, shared: dict[str, Any] | None = None) -> TrialResult | None:
        """The result of a trial; `None` if it has not ended, or failed and will be retried.

        :param shared: the part of the request that all trials share.
        :raises StoreError: if `result.json` is corrupt, or the folder holds another trial or belongs to another experiment.
        """
        folder = self.trial_folder(trial)
        result = read_result(folder, trial=trial)
        check_claim(folder, trial, shared)
        return result
