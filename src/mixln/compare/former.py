"""Converts chain results of version 1, which held reasons in words, to the current form."""

from __future__ import annotations

import re
from typing import Any

from mixln.evaluation.former import scores

DIVERGED = re.compile(r"(?P<step>\w+) diverged at step (?P<optimizer_step>\d+): (?P<reason>.*)", re.DOTALL)


def chain_result(entries: dict[str, Any]) -> dict[str, Any]:
    """Converts the result of one trial."""
    others = {name: entry for name, entry in entries.items() if name != "reason"}
    return {
        **others,
        "scores": None if others["scores"] is None else scores(others["scores"]),
        "interruption": _interruption(entries["reason"]),
    }


def _interruption(reason: str) -> dict[str, Any] | None:
    if not reason:
        return None
    interruption = {"kind": "error", "step": "", "status": None, "optimizer_step": None, "reason": reason}
    if diverged := DIVERGED.fullmatch(reason):
        return {
            **interruption,
            **diverged.groupdict(),
            "kind": "divergence",
            "optimizer_step": int(diverged["optimizer_step"]),
        }
    if "has no reward model at this seed" in reason:
        return {**interruption, "kind": "no-reward-model", "step": "rlhf", "reason": ""}
    return interruption
