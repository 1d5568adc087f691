"""Reads what mixln 0.1 stored about hardware and software as text."""

from __future__ import annotations

import re

from mixln.runs.provenance import Hardware, Provenance

FORMER = re.compile(
    r"(?P<cluster>a Ray cluster; (?P<share>[\d.]+) processor cores and (?P<gpus_each>[\d.]+) GPUs a trial)"
    r"|(?:(?P<gpus>[^;]+?), )?(?P<cores>\d+) processor cores; (?:(?P<trials>\d+) trials side by side, (?P<threads>\d+) threads each"
    r"|one trial at a time(?:, on (?P<processes>\d+) processes together)?)"
)
"""Hardware descriptions in files of mixln 0.1, separated by semicolons."""


def former_hardware(text: str) -> tuple[Hardware, ...]:
    """Parses the hardware descriptions of mixln 0.1."""
    return tuple(map(_former, FORMER.finditer(text)))


def former_provenance(facts: dict[str, str]) -> Provenance:
    """Parses the facts about a run that mixln 0.1 stored as text."""
    versions = [part.strip() for part in re.split("[,;]", facts.get("versions", ""))]
    return Provenance(
        versions=dict(part.rsplit(" ", 1) for part in versions if " " in part),
        commits=tuple(facts["commit"].split("; ")) if facts.get("commit") else (),
        hardware=former_hardware(facts.get("machine", "")),
    )


def _former(match: re.Match[str]) -> Hardware:
    if match["cluster"]:
        return Hardware(cores=float(match["share"]), gpus_per_trial=float(match["gpus_each"]))
    return Hardware(
        gpus=tuple(match["gpus"].split(", ")) if match["gpus"] else (),
        cores=int(match["cores"]),
        trials=int(match["trials"] or 1),
        threads=int(match["threads"]) if match["threads"] else None,
        processes=int(match["processes"] or 1),
    )
