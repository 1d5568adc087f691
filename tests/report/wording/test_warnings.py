"""The sentences on the warnings of a comparison."""

from __future__ import annotations

import pytest

from mixln.compare.results import (
    DiagnosisFailure,
    DuplicatePlacement,
    RunWarning,
    RunWarnings,
    UnequalSeeds,
    VersionChange,
)
from mixln.placement import placement
from mixln.placement.preflight import risks
from mixln.report.wording.warnings import sentence, sentences

(RISK,) = risks(placement("mix(0.25)", 3), init="normal")


@pytest.mark.parametrize(
    ("warning", "text"),
    [
        (RISK, RISK.message),
        (
            DuplicatePlacement(first="mix(0.25)", second="mix(3)"),
            "mix(0.25) and mix(3) are the same placement in this model",
        ),
        (
            VersionChange(package="torch", before="2.12.0", now="2.13.0"),
            "the trials of this experiment ran with different versions of torch: 2.12.0, now 2.13.0",
        ),
        (
            VersionChange(package="accelerate", before="1.15.0", now=None),
            "the trials of this experiment ran with different versions of accelerate: 1.15.0, now not installed",
        ),
        (DiagnosisFailure(model="Pre-LN", error="out of memory"), "Pre-LN could not be diagnosed: out of memory"),
        (
            DiagnosisFailure(model="Pre-LN"),
            "Pre-LN could not be diagnosed: no finished trial with a readable checkpoint",
        ),
        (DiagnosisFailure(model=None, error="no config.json"), "no model could be diagnosed: no config.json"),
        (
            UnequalSeeds(seeds={"pre": 0, "post": 1}),
            "the diagnosed trials have different seeds, each the lowest that trained: pre 0, post 1",
        ),
    ],
)
def test_each_warning_has_its_sentence(warning: RunWarning, text: str) -> None:
    assert sentence(warning) == text


def test_all_warnings() -> None:
    duplicate, unequal = DuplicatePlacement(first="a", second="b"), UnequalSeeds(seeds={"pre": 0, "post": 1})
    every = RunWarnings(risks=(RISK,), duplicates=(duplicate,), unequal_seeds=unequal)
    assert sentences(every) == tuple(map(sentence, (RISK, duplicate, unequal)))
    assert sentences(RunWarnings()) == ()
