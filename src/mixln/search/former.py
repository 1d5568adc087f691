"""Upgrade of stress tests and searches of version 1, which stored sentences."""

from __future__ import annotations

from typing import Any

from mixln.records import to_json
from mixln.runs.former import former_provenance


def stress(entries: dict[str, Any]) -> dict[str, Any]:
    """A stress test of version 1."""
    return {**_kept(entries), **_records(entries)}


def search(entries: dict[str, Any]) -> dict[str, Any]:
    """A search of version 1."""
    kept, chosen = _kept(entries), entries["chosen"]
    return {
        **kept,
        "finalists": list(map(_finalist, kept["finalists"])),
        "chosen": None if chosen is None else _finalist(chosen),
        **_records(entries),
    }


def _kept(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name not in ("facts", "verdict")}


def _records(entries: dict[str, Any]) -> dict[str, Any]:
    """The provenance; the description of the text was a sentence and cannot be converted."""
    return {"text": None, "provenance": to_json(former_provenance(entries["facts"]))}


def _finalist(entries: dict[str, Any]) -> dict[str, Any]:
    return {**entries, "ended": list(map(_ending, entries["ended"]))}


def _ending(words: str) -> dict[str, str]:
    """`diverged: the training loss is not finite`."""
    status, _, reason = words.partition(": ")
    return {"status": status, "reason": reason}
