"""Folders of a recipe's trainings. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from mixln.compare.store import Store
from mixln.recipes.records import Run
from mixln.records import to_json
from mixln.runs.trials import read_result

TRAININGS = "trainings"
"""Subfolder for the trainings of all recipes."""


def folder_of(name: str) -> str:
    """A name as a folder name: `LLaMA-1B` → `llama-1b`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def seeds_of(seeds: Sequence[int]) -> str:
    """Seeds as part of a folder name: `seeds-0-1-2`; more than three consecutive ones `seeds-0-to-9`; long lists as a count and a hash."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [f"{run[0]}-to-{run[-1]}" if len(run) > 3 else "-".join(map(str, run)) for run in runs]
    name = "-".join(parts)
    return f"seeds-{name if len(name) <= 60 else f'{len(seeds)}-{_hash(list(seeds))}'}"


def placed(run: Run, folder: Path, cache: Path) -> Run:
    """The run with its output folder. Runs with the same shared settings have the same folder, across recipes and deviations, so that
    each trains only the placements, learning rates, seeds and later steps that are missing.

    :param folder: parent folder of all trainings.
    """
    settings = run.settings
    name = settings.model if re.fullmatch(r"[\w.-]+", settings.model) else Path(settings.model).stem
    out = folder / f"{folder_of(name)}-{_hash(to_json(settings.shared()))}"
    return dataclasses.replace(run, settings=dataclasses.replace(settings, out=out, cache=cache))


def ended(run: Run) -> int:
    """Number of trials of a run that have ended."""
    settings, store = run.settings, Store(run.settings.out)
    trials = settings.trials(
        dict.fromkeys(settings.placements, "")
    )  # trial folders are named without the initialisation
    return sum(read_result(store.trial_folder(trial)) is not None for trial in trials)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
