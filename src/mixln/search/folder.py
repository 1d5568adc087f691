"""The run folder of a search."""

from __future__ import annotations

from typing import Any

from mixln.records import decisive
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.schema import Request, Schema
from mixln.search.settings import SearchSettings, StressSettings

SEARCH_RUN = RunKind(noun="search", request=Schema(kind="search", file="search.json", record=Request))


def named(settings: StressSettings | SearchSettings) -> dict[str, Any]:
    """The request of a search, as JSON: its command and the settings that affect its results."""
    command = "stress" if isinstance(settings, StressSettings) else "tune"
    return {"command": command, **decisive(settings)}


def folder_of(settings: StressSettings | SearchSettings) -> RunFolder[Any]:
    """The run folder of a search, which is new or holds the same search.

    :raises StoreError: if it holds a different search, or something else.
    """
    run = RunFolder(settings.out, SEARCH_RUN)
    run.check(named(settings))
    return run
