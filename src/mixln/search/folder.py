"""The folder of a search: what is searched for stands in it, so that another one does not go on there."""

from __future__ import annotations

import json
from typing import Any

from mixln.compare.store import LOCK
from mixln.errors import StoreError
from mixln.files import TEMPORARY, check_writable, write_atomic
from mixln.records import difference, read_json, to_json
from mixln.search.settings import SearchSettings, StressSettings

SETTINGS = "search.json"
PRIVATE = ("out", "cache", "jobs", "engine")
"""Settings that change no number."""


def named(settings: StressSettings | SearchSettings) -> dict[str, Any]:
    """What is searched for, as JSON has it."""
    entries = {name: value for name, value in to_json(settings).items() if name not in PRIVATE}
    command = "stress" if isinstance(settings, StressSettings) else "tune"
    return {"command": command, **entries}


def check(settings: StressSettings | SearchSettings) -> None:
    """:raises StoreError: if another search lies in the folder, or something else does."""
    out, path = settings.out, settings.out / SETTINGS
    check_writable(out)
    if not path.is_file():
        if out.exists() and any(entry.name != LOCK and not TEMPORARY.fullmatch(entry.name) for entry in out.iterdir()):
            raise StoreError(f"out {out} is not empty and holds no search; choose another --out")
        return
    try:
        present = read_json(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); choose another --out, or delete the folder") from error
    if found := difference(present, named(settings)):
        raise StoreError(f"out {out} holds another search: {found}; choose another --out, or the same settings")


def claim(settings: StressSettings | SearchSettings) -> None:
    """Writes down what is searched for; the folder is locked by then, and everything has been checked."""
    write_atomic(settings.out / SETTINGS, json.dumps(named(settings), indent=1))
