"""Diagnoses of a comparison's trials, kept in their folders."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from mixln.compare.sources import find
from mixln.data.settings import NamedText
from mixln.diagnostics.models import diagnose_all, prepare_models
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.errors import MixlnError, first_line
from mixln.hosts.sources import Say, Source
from mixln.records import to_json
from mixln.runs.folder import RunFolder
from mixln.runs.schema import Schema
from mixln.runs.trials import TRIAL_RUN, read_trial

KEPT = Schema(
    kind="trial-diagnosis",
    file="trial-diagnosis.json",
    record=Diagnosis,
    former="diagnosis.json",  # the name of the file of `mixln diagnose`, too
    upgrade=lambda kept: {"request": kept["settings"], "result": kept["diagnosis"]},
)
"""The file in a trial's folder that keeps its diagnosis."""


def diagnose_experiment(
    folder: Path, cache: Path, labels: dict[str, str], *, say: Say
) -> tuple[tuple[Diagnosis, ...], tuple[str, ...]]:
    """The diagnoses of a comparison: of each placement, its representative trial. Each is kept in the trial's folder.

    :param labels: placement → what the comparison calls it; others are left out.
    :returns: the diagnoses, and a warning for each trial that could not be diagnosed.
    """
    settings = MeasureSettings()
    found: list[Diagnosis] = []
    failures: list[str] = []

    def failed(text: str) -> None:
        failures.append(text)
        say(f"warning: {text}")

    try:
        sources = find(str(folder), cache=cache, say=failed)
    except MixlnError as error:
        failed(f"nothing could be diagnosed: {error}")
        return (), tuple(failures)
    for source in sources:
        label = labels.get(read_trial(Path(source.path).parent).placement)
        if label is None:
            continue
        try:
            found.append(replace(diagnose_trial(source, settings, cache=cache, say=say), model=label))
        except (MixlnError, RuntimeError, OSError) as error:
            failed(f"{source.title} could not be diagnosed: {first_line(error)}")
    return tuple(found), tuple(failures)


def diagnose_trial(source: Source, settings: MeasureSettings, *, cache: Path, say: Say) -> Diagnosis:
    """The diagnosis of one trial, measured or, where it has been measured before with the same settings, read from its folder."""
    checkpoint = Path(source.path)
    trial = RunFolder(checkpoint.parent, TRIAL_RUN)
    weights = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(checkpoint.glob("*.safetensors"))
    ]
    asked = {"version": version("mixln"), "weights": weights, **to_json(settings)}
    del asked["trust_task_code"]  # which changes no number
    if (diagnosis := trial.recall(KEPT, asked)) is None:
        prepared = prepare_models([source], NamedText(), settings, cache=cache, say=say)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, say=say, done=lambda diagnosis: None)
        trial.keep(KEPT, asked, diagnosis)
    return diagnosis
