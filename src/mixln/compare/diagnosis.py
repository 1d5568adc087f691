"""Diagnoses of a comparison's trials, stored in their folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixln import __version__
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
    former="diagnosis.json",  # also the file name of `mixln diagnose`
    upgrades=(lambda kept: {"request": kept["settings"], "result": former.diagnosis(kept["diagnosis"])},),
)
"""File in a trial's folder with its diagnosis."""


def diagnose_experiment(
    folder: Path, cache: Path, labels: dict[str, str], *, warn: Callable[[RunWarning], None]
) -> tuple[tuple[Diagnosis, ...], RunWarnings]:
    """Diagnoses one trial of each placement, see :func:`~mixln.compare.sources.representatives`, and stores the result in its folder.

    :param labels: placement → its label in the comparison; other placements are skipped.
    :param warn: called for each placement that could not be diagnosed, and if the trials have different seeds.
    :returns: the diagnoses, and the warnings.
    """
    diagnoses: list[Diagnosis] = []
    failures: list[DiagnosisFailure] = []

    def failed(model: str | None, error: str = "") -> None:
        failures.append(DiagnosisFailure(model=model, error=error))
        warn(failures[-1])

    try:
        chosen = representatives(str(folder), folder, cache)
    except MixlnError as error:
        failed(None, first_line(error))
        return (), RunWarnings(undiagnosed=tuple(failures))
    for placement, label in labels.items():
        if placement not in chosen.sources:
            failed(label, chosen.missing.get(placement, ""))
            continue
        try:
            diagnosis = diagnose_trial(chosen.sources[placement], MeasureSettings(), cache=cache)
            diagnoses.append(replace(diagnosis, model=label))
        except (MixlnError, RuntimeError, OSError) as error:  # RuntimeError: for example out of GPU memory
            failed(label, first_line(error))
    seeds = {placement: seed for placement, seed in chosen.seeds.items() if placement in labels}
    unequal = UnequalSeeds(seeds=seeds) if len(set(seeds.values())) > 1 else None
    if unequal is not None:
        warn(unequal)
    return tuple(diagnoses), RunWarnings(undiagnosed=tuple(failures), unequal_seeds=unequal)


def diagnose_trial(source: Source, settings: MeasureSettings, *, cache: Path) -> Diagnosis:
    """The diagnosis of one trial; read from its folder if it was measured there before with the same settings and weights."""
    checkpoint = Path(source.path)
    trial = RunFolder(checkpoint.parent, TRIAL_RUN)
    # Size and time identify the weights: a checksum would read them all each time.
    weights = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(checkpoint.glob("*.safetensors"))
    ]
    asked = {"version": __version__, "weights": weights, **to_json(settings)}
    del asked["trust_task_code"]  # a permission, which changes no result
    if (diagnosis := trial.recall(KEPT, asked)) is None:
        prepared = prepare_models([source], NamedText(), settings, cache=cache)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, done=lambda diagnosis: None)
        trial.keep(KEPT, asked, diagnosis)
    return diagnosis
