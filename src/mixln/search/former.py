"""Stress tests and searches of version 1, which held sentences and facts in words, in the form of today."""

from __future__ import annotations

from typing import Any

from mixln.records import to_json
from mixln.runs.provenance import former_provenance


def stress(entries: dict[str, Any]) -> dict[str, Any]:
    """All ramps."""
    return {**_kept(entries), **_found(entries)}


def search(entries: dict[str, Any]) -> dict[str, Any]:
    """A choice with its evidence."""
    kept, chosen = _kept(entries), entries["chosen"]
    return {
        **kept,
        "finalists": list(map(_finalist, kept["finalists"])),
        "chosen": None if chosen is None else _finalist(chosen),
        **_found(entries),
    }


def _kept(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name not in ("facts", "verdict")}


def _found(entries: dict[str, Any]) -> dict[str, Any]:
    """The text was words alone, and is lost."""
    return {"text": None, "provenance": to_json(former_provenance(entries["facts"]))}


def _finalist(entries: dict[str, Any]) -> dict[str, Any]:
    return {**entries, "ended": list(map(_ending, entries["ended"]))}


def _ending(words: str) -> dict[str, str]:
    """`diverged: the training loss is not finite`."""
    status, _, reason = words.partition(": ")
    return {"status": status, "reason": reason}
