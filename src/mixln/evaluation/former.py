"""Evaluations of version 1, which held facts and notes in words, in the form of today."""

from __future__ import annotations

from typing import Any

from mixln.records import to_json
from mixln.runs.provenance import former_provenance


def scores(entries: dict[str, Any]) -> dict[str, Any]:
    """All tasks by one model."""
    return {"model": entries["model"], "scores": entries["scores"], "subject": None}


def evaluation(entries: dict[str, Any]) -> dict[str, Any]:
    """Several models on the same tasks."""
    return {
        "settings": entries["settings"],
        "models": list(map(scores, entries["models"])),
        "pairs": entries["pairs"],
        "question_limit": None,
        "questions": None,
        "provenance": to_json(former_provenance(entries["facts"])),
    }
