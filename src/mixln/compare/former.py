"""Results of chains of version 1, which held reasons in words, in the form of today."""

from __future__ import annotations

import re
from typing import Any

from mixln.evaluation.former import scores

DIVERGED = re.compile(r"(?P<step>\w+) diverged at step (?P<optimizer_step>\d+): (?P<reason>.*)", re.DOTALL)


def chain_result(entries: dict[str, Any]) -> dict[str, Any]:
    """How far one trial went."""
    kept = {name: entry for name, entry in entries.items() if name != "reason"}
    return {
        **kept,
        "scores": None if kept["scores"] is None else scores(kept["scores"]),
        "interruption": _interruption(entries["reason"]),
    }


def _interruption(reason: str) -> dict[str, Any] | None:
    if not reason:
        return None
    found = {"kind": "error", "step": "", "status": None, "optimizer_step": None, "reason": reason}
    if diverged := DIVERGED.fullmatch(reason):
        return {
            **found,
            **diverged.groupdict(),
            "kind": "divergence",
            "optimizer_step": int(diverged["optimizer_step"]),
        }
    if "has no reward model at this seed" in reason:
        return {**found, "kind": "no-reward-model", "step": "rlhf", "reason": ""}
    return found
