"""Calibration of image classifiers: how their confidence agrees with their accuracy."""

from __future__ import annotations

from mixln.compare.results import PlacementPredictions, Summary
from mixln.report import names as naming
from mixln.report.figures import axes
from mixln.report.figures.series import Chart, Panel, Reference, Trace
from mixln.report.wording import comparison_charts as texts

FEWEST = 20
"""Minimum number of predictions of a bin that is shown: below it, the accuracy of the bin is mostly noise."""


def calibration(summary: Summary) -> tuple[Chart, ...]:
    """Accuracy minus confidence against confidence; empty without predictions."""
    if not summary.answered:
        return ()
    traces = [_trace(key, name, answers) for key, name, answers in predicted(summary)]
    errors = [
        (name, row.best.figures["calibration"])
        for name, row in zip(naming.placements(summary), summary.placements, strict=True)
        if "calibration" in row.best.figures
    ]
    panel = Panel(
        title="",
        x=axes.linear(texts.CONFIDENCE, [x for trace in traces for x in trace.x]),
        y=axes.linear(texts.OVERCONFIDENCE, [0.0, *(y for trace in traces for y in trace.y)]),
        traces=tuple(traces),
        reference=Reference(value=0.0, label=texts.PERFECT, along="y"),
    )
    return (
        Chart(
            name="calibration",
            text=texts.calibration(errors, FEWEST),
            keys=naming.placements(summary),
            panels=(panel,),
            across=1,
        ),
    )


def predicted(summary: Summary) -> list[tuple[int, str, PlacementPredictions]]:
    """Key, label and predictions of each placement with predictions."""
    by_placement = {answers.placement: answers for answers in summary.answered}
    names = zip(naming.placements(summary), summary.placements, strict=True)
    return [
        (key, name, by_placement[row.placement])
        for key, (name, row) in enumerate(names)
        if row.placement in by_placement
    ]


def _trace(key: int, name: str, answers: PlacementPredictions) -> Trace:
    bins = [entry for entry in answers.reliability if entry[2] >= FEWEST]
    return Trace(
        key=key,
        role="mean",
        label=name,
        points=tuple((100 * confidence, 100 * (right - confidence)) for confidence, right, _ in bins),
        texts=tuple(texts.calibrated(name, confidence, right, images) for confidence, right, images in bins),
    )
