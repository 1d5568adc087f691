"""Diagnoses of a comparison's trials, kept in their folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from mixln.compare.results import DiagnosisFailure, RunWarning, RunWarnings, UnequalSeeds
from mixln.compare.sources import representatives
from mixln.data.settings import NamedText
from mixln.diagnostics import former
from mixln.diagnostics.models import diagnose_all, prepare_models
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.errors import MixlnError, first_line
from mixln.hosts.sources import Source
from mixln.records import to_json
from mixln.runs.folder import RunFolder
from mixln.runs.schema import Schema
from mixln.runs.trials import TRIAL_RUN

KEPT = Schema(
    kind="trial-diagnosis",
    file="trial-diagnosis.json",
    record=Diagnosis,
    former="diagnosis.json",  # the name of the file of `mixln diagnose`, too
    upgrade=lambda kept: {"request": kept["settings"], "result": former.diagnosis(kept["diagnosis"])},
)
"""The file in a trial's folder that keeps its diagnosis."""


def diagnose_experiment(
    folder: Path, cache: Path, labels: dict[str, str], *, warn: Callable[[RunWarning], None]
) -> tuple[tuple[Diagnosis, ...], RunWarnings]:
    """The diagnoses of a comparison: of each placement, its representative trial. Each is kept in the trial's folder.

    :param labels: placement → its label in the comparison; other placements are left out.
    :param warn: told of each placement that could not be diagnosed, and of trials that do not all have the same seed.
    """
    diagnoses: list[Diagnosis] = []
    failures: list[DiagnosisFailure] = []

    def failed(model: str | None, error: str = "") -> None:
        failures.append(DiagnosisFailure(model=model, error=error))
        warn(failures[-1])

    try:
        found = representatives(str(folder), folder, cache)
    except MixlnError as error:
        failed(None, first_line(error))
        return (), RunWarnings(undiagnosed=tuple(failures))
    for placement, label in labels.items():
        if placement not in found.sources:
            failed(label, found.missing.get(placement, ""))
            continue
        try:
            diagnosis = diagnose_trial(found.sources[placement], MeasureSettings(), cache=cache)
            diagnoses.append(replace(diagnosis, model=label))
        except (MixlnError, RuntimeError, OSError) as error:
            failed(label, first_line(error))
    seeds = {placement: seed for placement, seed in found.seeds.items() if placement in labels}
    unequal = UnequalSeeds(seeds=seeds) if len(set(seeds.values())) > 1 else None
    if unequal is not None:
        warn(unequal)
    return tuple(diagnoses), RunWarnings(undiagnosed=tuple(failures), unequal_seeds=unequal)


def diagnose_trial(source: Source, settings: MeasureSettings, *, cache: Path) -> Diagnosis:
    """The diagnosis of one trial, measured or, where it has been measured before with the same settings, read from its folder."""
    checkpoint = Path(source.path)
    trial = RunFolder(checkpoint.parent, TRIAL_RUN)
    weights = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(checkpoint.glob("*.safetensors"))
    ]
    asked = {"version": version("mixln"), "weights": weights, **to_json(settings)}
    del asked["trust_task_code"]  # which changes no number
    if (diagnosis := trial.recall(KEPT, asked)) is None:
        prepared = prepare_models([source], NamedText(), settings, cache=cache)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, done=lambda diagnosis: None)
        trial.keep(KEPT, asked, diagnosis)
    return diagnosis
