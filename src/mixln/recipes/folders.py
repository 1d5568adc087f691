"""Where what a recipe trains lies; nothing here needs torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from mixln.compare.store import Store, read_result
from mixln.recipes.records import Run
from mixln.records import to_json

TRAININGS = "trainings"
"""The folder of the trainings of all recipes, in that of the recipes."""


def folder_of(name: str) -> str:
    """A name as that of a folder: `LLaMA-1B` → `llama-1b`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def placed(run: Run, folder: Path, cache: Path) -> Run:
    """The run where its trainings lie. All runs with the same settings share a folder, whatever recipe or deviation they are of:
    to what one has trained, the next adds its placements, learning rates and seeds, or what follows the pre-training.

    :param folder: of all trainings.
    """
    settings = run.settings
    terms = json.dumps(to_json(settings.shared()), sort_keys=True)
    name = settings.model if re.fullmatch(r"[\w.-]+", settings.model) else Path(settings.model).stem
    out = folder / f"{folder_of(name)}-{hashlib.sha256(terms.encode()).hexdigest()[:10]}"
    return dataclasses.replace(run, settings=dataclasses.replace(settings, out=out, cache=cache))


def ended(run: Run) -> int:
    """How many of the trials of a run have ended, where it lies."""
    settings, store = run.settings, Store(run.settings.out)
    trials = settings.trials(dict.fromkeys(settings.placements, ""))  # the folder's name is without the initialisation
    return sum(read_result(store.trial_folder(trial)) is not None for trial in trials)
