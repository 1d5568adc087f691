"""Upgrades diagnoses of version 1, which stored sentences, to the current schema."""

from __future__ import annotations

from typing import Any

from mixln.records import to_json
from mixln.runs.former import former_provenance
from mixln.runs.provenance import ModelFacts


def diagnosis(entries: dict[str, Any]) -> dict[str, Any]:
    """Upgrades the diagnosis of one model. Its data was described in words only, which are dropped."""
    kept = {name: entry for name, entry in entries.items() if name not in ("facts", "verdict", "left_out")}
    facts = entries["facts"]
    subject = ModelFacts(
        source=facts.get("source", ""),
        family=facts.get("family", ""),
        placement=facts.get("placement"),
        parameters=int(facts["parameters"].replace(",", "")) if "parameters" in facts else None,
        precision=facts.get("number format"),
    )
    drops = kept["drops"]
    return {
        **kept,
        "drops": None if drops is None else _drops(drops),
        "tasks": list(map(_drops, kept["tasks"])),
        "omitted": [],
        "subject": to_json(subject),
        "text": None,
        "images": None,
    }


def diagnoses(entries: dict[str, Any]) -> dict[str, Any]:
    """Upgrades the diagnoses of several models."""
    return {
        "settings": entries["settings"],
        "models": list(map(diagnosis, entries["models"])),
        "provenance": to_json(former_provenance(entries.get("facts", {}))),
    }


def _drops(entries: dict[str, Any]) -> dict[str, Any]:
    """Splits the measure `acc of arc_easy` into the measure `acc` and the task `arc_easy`."""
    measure, _, task = entries["measure"].partition(" of ")
    return {**entries, "measure": measure, "task": task}
