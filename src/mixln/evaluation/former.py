"""Upgrades evaluations of version 1, which stored facts and notes as sentences, to the current schema."""

from __future__ import annotations

from typing import Any

from mixln.records import to_json
from mixln.runs.former import former_provenance


def scores(entries: dict[str, Any]) -> dict[str, Any]:
    """Upgrades the scores of one model."""
    return {"model": entries["model"], "scores": entries["scores"], "subject": None}


def evaluation(entries: dict[str, Any]) -> dict[str, Any]:
    """Upgrades an evaluation of several models."""
    return {
        "settings": entries["settings"],
        "models": list(map(scores, entries["models"])),
        "pairs": entries["pairs"],
        "question_limit": None,
        "questions": None,
        "provenance": to_json(former_provenance(entries["facts"])),
    }
