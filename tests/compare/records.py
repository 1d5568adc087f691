"""Results of trials written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from mixln.compare.findings import AgainstBaseline, findings
from mixln.compare.results import FrequencyBaseline, PlacementSummary, Summary, TrialLength
from mixln.compare.statistics import summarise
from mixln.compare.tasks import TASKS
from mixln.findings import Finding
from mixln.runs.trials import Trial, TrialResult

OUT = Path("runs/own words")
FLOORS: dict[str, FrequencyBaseline] = {
    "language": FrequencyBaseline(loss=math.log(500.0), bits_per_byte=2.5),
    "vision": FrequencyBaseline(loss=math.log(10), figures={"accuracy": 0.1}),
}


def result(
    placement: str,
    loss: float | None,
    *,
    seed: int = 0,
    rate: float = 1e-3,
    status: str | None = None,
    init: str = "normal",
    speed: float | None = 100.0,
) -> TrialResult:
    """A trial that finished with `loss`, or diverged where that is `None`."""
    return TrialResult(
        trial=Trial(placement=placement, init=init, learning_rate=rate, seed=seed),
        status=status or ("diverged" if loss is None else "finished"),
        step=10,
        tokens=640,
        loss=loss,
        bits_per_byte=None if loss is None else loss / 2,
        tokens_per_second=speed,
        seconds=1.0,
    )


def results(placement: str, losses: Sequence[float | None], **settings) -> list[TrialResult]:
    """One trial a seed."""
    return [result(placement, loss, seed=seed, **settings) for seed, loss in enumerate(losses)]


def rows(trials: Sequence[TrialResult], *, baseline: str | None = None) -> tuple[PlacementSummary, ...]:
    """The table of some trials; the first placement is the baseline."""
    return summary(trials, baseline=baseline).placements


def summary(trials: Sequence[TrialResult], *, baseline: str | None = None, task: str = "language") -> Summary:
    """A comparison of some trials; the first placement is the baseline."""
    placements = list(dict.fromkeys(each.trial.placement for each in trials))
    reference = baseline or placements[0]
    table = summarise(
        trials,
        TASKS[task].metrics.ranking,
        placements=placements,
        learning_rates=sorted({each.trial.learning_rate for each in trials}, reverse=True),
        baseline=reference,
        titles={name: f"Title of {name}" for name in placements},
    )
    return Summary(
        task=task,
        settings={},
        folder=str(OUT),
        parameters=1000,
        length=TrialLength(steps=10, amount=640),
        baseline=reference,
        floor=FLOORS[task],
        placements=table,
        trials=tuple(trials),
    )


def found(trials: Sequence[TrialResult], *, baseline: str | None = None, task: str = "language") -> tuple[Finding, ...]:
    """What a comparison of some trials shows."""
    return findings(summary(trials, baseline=baseline, task=task))


F = TypeVar("F", bound=Finding)


def all_of(every: Sequence[Finding], kind: type[F]) -> list[F]:
    """The findings of one kind."""
    return [finding for finding in every if isinstance(finding, kind)]


def one(every: Sequence[Finding], kind: type[F]) -> F:
    """The only finding of a kind."""
    (finding,) = all_of(every, kind)
    return finding


def against(every: Sequence[Finding], placement: str) -> AgainstBaseline:
    """The comparison of a placement with the baseline."""
    (finding,) = [each for each in all_of(every, AgainstBaseline) if each.subject.placement == placement]
    return finding
