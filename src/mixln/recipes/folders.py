"""Where what a recipe trains lies; nothing here needs torch."""

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
"""The folder of the trainings of all recipes, in that of the recipes."""


def folder_of(name: str) -> str:
    """A name as that of a folder: `LLaMA-1B` → `llama-1b`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def seeds_of(seeds: Sequence[int]) -> str:
    """Seeds as part of a folder's name: `seeds-0-1-2`, of many in a row `seeds-0-to-9`; of very many their number and a hash."""
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
    """The run where its trainings lie. All runs with the same settings share a folder, whatever recipe or deviation they are of:
    to what one has trained, the next adds its placements, learning rates and seeds, or what follows the pre-training.

    :param folder: of all trainings.
    """
    settings = run.settings
    name = settings.model if re.fullmatch(r"[\w.-]+", settings.model) else Path(settings.model).stem
    out = folder / f"{folder_of(name)}-{_hash(to_json(settings.shared()))}"
    return dataclasses.replace(run, settings=dataclasses.replace(settings, out=out, cache=cache))


def ended(run: Run) -> int:
    """How many of the trials of a run have ended, where it lies."""
    settings, store = run.settings, Store(run.settings.out)
    trials = settings.trials(dict.fromkeys(settings.placements, ""))  # the folder's name is without the initialisation
    return sum(read_result(store.trial_folder(trial)) is not None for trial in trials)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
