"""Results of trials written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mixln.compare.measure import LANGUAGE
from mixln.compare.results import Floor, PlacementSummary
from mixln.compare.statistics import runner_up, summarise
from mixln.compare.verdict import verdict
from mixln.runs.trials import Trial, TrialResult

OUT = Path("runs/own words")
FLOOR = Floor(loss=math.log(500.0), bits_per_byte=2.5)


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
    placements = list(dict.fromkeys(each.trial.placement for each in trials))
    return summarise(
        trials,
        LANGUAGE,
        placements=placements,
        learning_rates=sorted({each.trial.learning_rate for each in trials}, reverse=True),
        baseline=baseline or placements[0],
        titles={name: f"Title of {name}" for name in placements},
    )


def said(trials: Sequence[TrialResult], *, baseline: str | None = None) -> tuple[str, ...]:
    """The verdict on some trials."""
    table = rows(trials, baseline=baseline)
    return verdict(
        table,
        LANGUAGE,
        baseline=baseline or trials[0].trial.placement,
        floor=FLOOR,
        learning_rates=sorted({each.trial.learning_rate for each in trials}),
        seeds=sorted({each.trial.seed for each in trials}),
        given="640 tokens in 10 steps",
        runner_up=runner_up(trials, table, LANGUAGE),
        out=OUT,
    )
