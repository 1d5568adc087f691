"""Sentences on the warnings of a comparison."""

from __future__ import annotations

from mixln.compare.results import (
    DiagnosisFailure,
    DuplicatePlacement,
    RunWarning,
    RunWarnings,
    UnequalSeeds,
    VersionChange,
)
from mixln.placement.preflight import PlacementRisk
from mixln.report.wording.phrases import listed


def sentences(warnings: RunWarnings) -> tuple[str, ...]:
    """One sentence per warning."""
    return tuple(map(sentence, warnings.every))


def sentence(warning: RunWarning) -> str:
    """The sentence on one warning."""
    match warning:
        case PlacementRisk():
            return warning.message
        case DuplicatePlacement():
            return f"{warning.first} and {warning.second} are the same placement in this model"
        case VersionChange():
            now = warning.now or "not installed"
            return f"the trials of this experiment ran with different versions of {warning.package}: {warning.before}, now {now}"
        case DiagnosisFailure():
            failed = "no model could be" if warning.model is None else f"{warning.model} could not be"
            return f"{failed} diagnosed: {warning.error or 'no finished trial with a readable checkpoint'}"
        case UnequalSeeds():
            seeds = listed(f"{placement} {seed}" for placement, seed in warning.seeds.items())
            return f"the diagnosed trials have different seeds, each the lowest that trained: {seeds}"
