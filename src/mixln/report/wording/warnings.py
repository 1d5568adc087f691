"""What a comparison warns of, in sentences."""

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
    """All of them."""
    return tuple(map(sentence, warnings.every))


def sentence(warning: RunWarning) -> str:
    """One warning in words."""
    match warning:
        case PlacementRisk():
            return warning.message
        case DuplicatePlacement():
            return f"{warning.first} and {warning.second} are the same placement of this model"
        case VersionChange():
            now = warning.now or "not installed"
            return f"the trials of this experiment do not all have the same version of {warning.package}: {warning.before}, now {now}"
        case DiagnosisFailure():
            what = "nothing could be" if warning.model is None else f"{warning.model} could not be"
            return f"{what} diagnosed: {warning.error or 'no finished trial with a readable checkpoint'}"
        case UnequalSeeds():
            seeds = listed(f"{placement} {seed}" for placement, seed in warning.seeds.items())
            return f"the diagnosed trials do not all have the same seed, but the lowest that trained: {seeds}"
