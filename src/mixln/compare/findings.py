"""Findings of a comparison, as data: the best placement, its lead, whether that is significant, and the limits of the conclusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mixln.compare.metrics import Measured
from mixln.compare.results import Cell, ChainRow, Interval, PlacementSummary, Summary, TrialLength
from mixln.compare.statistics import order, runner_up
from mixln.compare.tasks import TASKS
from mixln.findings import Finding
from mixln.metrics import Metric

ENOUGH_SEEDS = 5
"""Number of seeds from which on there is no :class:`FewSeeds`. With 5 paired differences, t is 2.8; with 2, it is 12.7."""
LeadJudgement = Literal[
    "single-seed",
    "no-rival",
    "separated-from-all",
    "not-separated",
    "no-common-seed",
    "baseline-untrained",
    "single-pair",
    "stalled-left-out",
    "identical-differences",
    "significant",
    "not-significant",
]
BaselineJudgement = Literal[
    "no-value", "some-stalled", "missing-pairs", "single-pair", "untrained", "better", "worse", "not-significant"
]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A placement: its specification, and its name in the literature."""

    placement: str
    title: str


@dataclass(frozen=True, kw_only=True)
class PlacementMean:
    """A placement's mean at its best learning rate.

    :param value: mean of the metric, untransformed, for example loss in nats per token; `None` if no trial has it.
    :param stalled: seeds that stalled and are excluded from the mean; 0 if all trained or none did.
    """

    subject: Subject
    learning_rate: float
    value: float | None
    finished: int
    seeds: int
    stalled: int


@dataclass(frozen=True, kw_only=True)
class NothingTrained(Finding):
    """Every trial diverged, stalled or failed."""


@dataclass(frozen=True, kw_only=True)
class Leader(Finding):
    """The placement with the best mean.

    :param of_survivors: whether a placement that trained at fewer seeds has a better mean.
    :param tuned: whether each placement is at its own best of several learning rates.
    :param interval: interval of the difference from the baseline; `None` for the baseline itself, or without a common seed.
    :param unseparated: if the baseline leads, the placements that are not significantly worse.
    """

    leader: PlacementMean
    baseline: Subject
    of_survivors: bool
    tuned: bool
    interval: Interval | None
    unseparated: tuple[Subject, ...] = ()
    judgement: LeadJudgement


@dataclass(frozen=True, kw_only=True)
class RunnerUp(Finding):
    """The second-best placement that trained, and its difference from the leader."""

    runner_up: PlacementMean
    leader: Subject
    interval: Interval
    judgement: Literal["single-pair", "behind", "not-significant"]


@dataclass(frozen=True, kw_only=True)
class AgainstBaseline(Finding):
    """A placement compared with the baseline.

    :param interval: best learning rate against the baseline's best.
    :param common: both at the common learning rate; `None` with a single learning rate.
    :param seeds: number of seeds of the placement; `stalled` of them stalled.
    :param baseline_stalled: number of the baseline's seeds that stalled.
    """

    subject: Subject
    baseline: Subject
    tuned: bool
    interval: Interval | None
    common: Interval | None = None
    common_rate: float
    seeds: int
    stalled: int
    baseline_stalled: int
    judgement: BaselineJudgement


@dataclass(frozen=True, kw_only=True)
class FailedTrials(Finding):
    """Trials of one placement at one learning rate that did not train."""

    subject: Subject
    learning_rate: float
    seeds: int
    diverged: int
    stalled: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class StallRule(Finding):
    """The frequency baseline, against which a trial counts as stalled (`stalled` of :mod:`mixln.training`).

    :param value: metric of the frequency baseline, untransformed.
    """

    value: float


@dataclass(frozen=True, kw_only=True)
class UncorrectedSelection(Finding):
    """The leader was selected among several placements, and the intervals are not corrected for multiple comparisons."""

    placements: int


@dataclass(frozen=True, kw_only=True)
class SingleLearningRate(Finding):
    """All placements were compared at one learning rate.

    :param proposed: learning rates to add to the experiment in `folder`.
    """

    learning_rate: float
    proposed: tuple[float, ...]
    folder: str


@dataclass(frozen=True, kw_only=True)
class TunedOnHeldOut(Finding):
    """The best learning rates were selected on the same held-out data that the results are computed on.

    :param at_edge: placements whose best learning rate is the lowest or highest of the grid.
    """

    at_edge: tuple[Subject, ...]


@dataclass(frozen=True, kw_only=True)
class InitsDiffer(Finding):
    """The placements have different initialisations: initialisation → placements."""

    inits: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class FewSeeds(Finding):
    """There are too few seeds for narrow intervals.

    :param proposed: the seeds of the experiment in `folder` and some more.
    """

    seeds: int
    proposed: tuple[int, ...]
    folder: str


@dataclass(frozen=True, kw_only=True)
class LengthCaveat(Finding):
    """Each trial was trained for this length; with another length or model size, the order may differ."""

    length: TrialLength


@dataclass(frozen=True, kw_only=True)
class _FindingsContext:
    """The rows of a summary, and the values that judge them."""

    summary: Summary
    rows: Sequence[PlacementSummary]
    metric: Metric[Measured]
    lead: PlacementSummary | None
    reference: PlacementSummary
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def tuned(self) -> bool:
        return len(self.learning_rates) > 1

    def worse(self, interval: Interval | None) -> bool:
        """Whether a difference is significant and unfavourable."""
        return interval is not None and interval.excludes_zero and self.metric.harm * interval.mean > 0


def findings(summary: Summary) -> tuple[Finding, ...]:
    """The findings of a comparison, the most important first. They are computed from the numbers, and not stored."""
    metric, rows = TASKS[summary.task].metrics.ranking, summary.placements
    trained = (row for row in rows if row.best.finished)
    judge = _FindingsContext(
        summary=summary,
        rows=rows,
        metric=metric,
        lead=min(trained, key=lambda row: order(row, metric), default=None),
        reference=next(row for row in rows if row.placement == summary.baseline),
        learning_rates=summary.learning_rates,
        seeds=tuple(sorted({result.trial.seed for result in summary.trials})),
    )
    # At a single learning rate, the finding about the leader already holds its difference from the baseline.
    covered = judge.lead if len(judge.seeds) > 1 and not judge.tuned else None
    others = [row for row in rows if judge.lead and row is not judge.reference and row is not covered]
    return (
        _leader(judge),
        *_second(judge),
        *(_against(judge, row) for row in others),
        *_failed(judge),
        *_limits(judge),
        LengthCaveat(length=summary.length),
    )


def subject_of(row: PlacementSummary | ChainRow) -> Subject:
    """The placement of a row."""
    return Subject(placement=row.placement, title=row.title)


def _standing(judge: _FindingsContext, row: PlacementSummary) -> PlacementMean:
    best = row.best
    return PlacementMean(
        subject=subject_of(row),
        learning_rate=best.learning_rate,
        value=judge.metric.value(best),
        finished=best.finished,
        seeds=best.seeds,
        stalled=best.stalled_beside,
    )


def _leader(judge: _FindingsContext) -> Finding:
    lead, metric = judge.lead, judge.metric
    if lead is None:
        return NothingTrained()
    finding = Leader(
        leader=_standing(judge, lead),
        baseline=subject_of(judge.reference),
        of_survivors=any(metric.badness(row.best) < metric.badness(lead.best) for row in judge.rows),
        tuned=judge.tuned,
        interval=lead.best.difference,
        judgement="single-seed",
    )
    if len(judge.seeds) == 1:
        return finding
    if lead is judge.reference:
        return _leading_baseline(judge, finding)
    return replace(finding, judgement=_lead_over_baseline(lead.best, judge.reference.best))


def _leading_baseline(judge: _FindingsContext, finding: Leader) -> Leader:
    rivals = [row for row in judge.rows if row is not judge.reference and row.best.finished]
    close = tuple(subject_of(row) for row in rivals if not judge.worse(row.best.difference))
    if not rivals:
        return replace(finding, judgement="no-rival")
    return replace(finding, unseparated=close, judgement="not-separated" if close else "separated-from-all")


def _lead_over_baseline(lead: Cell, baseline: Cell) -> LeadJudgement:
    """The judgement on a leader that is not the baseline."""
    interval = lead.difference
    if interval is None:
        return "no-common-seed"
    if not baseline.finished:
        return "baseline-untrained"
    if interval.low is None:
        return "single-pair"
    if lead.stalled or baseline.stalled:
        return "stalled-left-out"
    if interval.pointlike:
        return "identical-differences"
    return "significant" if interval.excludes_zero else "not-significant"


def _second(judge: _FindingsContext) -> Iterator[Finding]:
    """The difference of the runner-up from the leader, unless one of them is the baseline: that difference has its own finding."""
    runner = runner_up(judge.summary.trials, judge.rows, judge.metric)
    if judge.lead is None or runner is None or judge.reference in (judge.lead, runner[0]):
        return
    second, interval = runner
    behind = "behind" if judge.worse(interval) else "not-significant"
    yield RunnerUp(
        runner_up=_standing(judge, second),
        leader=subject_of(judge.lead),
        interval=interval,
        judgement="single-pair" if interval.low is None else behind,
    )


def _against(judge: _FindingsContext, row: PlacementSummary) -> AgainstBaseline:
    baseline = judge.reference.best
    return AgainstBaseline(
        subject=subject_of(row),
        baseline=subject_of(judge.reference),
        tuned=judge.tuned,
        interval=row.best.difference,
        common=row.common.difference if judge.tuned else None,
        common_rate=row.common.learning_rate,
        seeds=row.best.seeds,
        stalled=row.best.stalled,
        baseline_stalled=baseline.stalled,
        judgement=_judgement(judge, row.best, baseline),
    )


def _judgement(judge: _FindingsContext, cell: Cell, baseline: Cell) -> BaselineJudgement:
    interval = cell.difference
    if interval is None:
        return "no-value"
    if cell.mixed or baseline.mixed:
        return "some-stalled"
    if interval.pairs < cell.seeds:
        return "missing-pairs"
    if interval.low is None:
        return "single-pair"
    if cell.stalled or baseline.stalled:
        return "untrained"
    if not interval.excludes_zero:
        return "not-significant"
    return "worse" if judge.worse(interval) else "better"


def _failed(judge: _FindingsContext) -> Iterator[Finding]:
    for row in judge.rows:
        for cell in row.cells:
            if cell.diverged or cell.stalled or cell.failed:
                yield FailedTrials(
                    subject=subject_of(row),
                    learning_rate=cell.learning_rate,
                    seeds=cell.seeds,
                    diverged=cell.diverged,
                    stalled=cell.stalled,
                    failed=cell.failed,
                )
    floor = judge.metric.value(judge.summary.floor)
    if floor is not None and any(cell.stalled for row in judge.rows for cell in row.cells):
        yield StallRule(value=floor)


def _limits(judge: _FindingsContext) -> Iterator[Finding]:
    rates, seeds, folder = judge.learning_rates, judge.seeds, judge.summary.folder
    if judge.lead not in (None, judge.reference) and len(judge.rows) > 2 and len(seeds) > 1:
        yield UncorrectedSelection(placements=len(judge.rows))
    if len(rates) == 1:
        yield SingleLearningRate(learning_rate=rates[0], proposed=_around(rates[0]), folder=folder)
    else:
        edge = [row for row in judge.rows if row.best.learning_rate in (rates[0], rates[-1])]
        yield TunedOnHeldOut(at_edge=tuple(map(subject_of, edge)))
    if len(inits := sorted({row.init for row in judge.rows})) > 1:
        yield InitsDiffer(
            inits={init: tuple(row.placement for row in judge.rows if row.init == init) for init in inits}
        )
    if len(seeds) < ENOUGH_SEEDS:
        yield FewSeeds(seeds=len(seeds), proposed=_more(seeds), folder=folder)


def _around(rate: float) -> tuple[float, float, float]:
    """A learning rate, and one below and one above it by a factor of about 3 (half a decade)."""
    return float(f"{rate / 3:.1g}"), rate, float(f"{rate * 10 / 3:.1g}")


def _more(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds and the lowest others, up to :data:`ENOUGH_SEEDS`."""
    others = [seed for seed in range(ENOUGH_SEEDS) if seed not in seeds]
    return (*seeds, *others)[:ENOUGH_SEEDS]
