"""Diagnoses of a comparison's trials, kept in their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixln.compare.sources import find
from mixln.data.settings import NamedText
from mixln.diagnostics.models import diagnose_all, prepare_models
from mixln.diagnostics.results import Diagnosis
from mixln.diagnostics.settings import MeasureSettings
from mixln.errors import MixlnError, first_line
from mixln.files import write_atomic
from mixln.hosts.sources import Say, Source
from mixln.records import from_json, read_json, to_json
from mixln.runs.trials import read_trial

KEPT = "diagnosis.json"
"""Name of the file in a trial's folder that holds its diagnosis."""


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
    kept = checkpoint.parent / KEPT
    weights = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(checkpoint.glob("*.safetensors"))
    ]
    asked = {"version": version("mixln"), "weights": weights, **to_json(settings)}
    del asked["trust_task_code"]  # which changes no number
    if (diagnosis := _read(kept, asked)) is None:
        prepared = prepare_models([source], NamedText(), settings, cache=cache, say=say)
        (diagnosis,) = diagnose_all(prepared, settings, cache=cache, say=say, done=lambda diagnosis: None)
        write_atomic(kept, json.dumps({"settings": asked, "diagnosis": to_json(diagnosis)}, indent=1))
    return diagnosis


def _read(path: Path, asked: dict[str, Any]) -> Diagnosis | None:
    """A diagnosis that was kept, if it is one of the same settings."""
    try:
        kept = read_json(path)
        return from_json(Diagnosis, kept["diagnosis"]) if kept["settings"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is damaged: it is measured again
