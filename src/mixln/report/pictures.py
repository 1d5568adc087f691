"""What image classifiers say of held-out images: how their confidence agrees with their accuracy, and their surest mistakes."""

from __future__ import annotations

import base64
import io
from html import escape

from matplotlib.figure import Figure
from PIL import Image

from mixln.compare.results import Answered, Mistake, Summary
from mixln.report import axes, formats, series
from mixln.report.figures import DOTS_PER_INCH, INK, WIDTH_INCHES
from mixln.report.series import Chart, Panel, Reference, Trace
from mixln.report.skeleton import section

FEWEST = 20
"""Images of a bin of confidence from which it is shown."""
NAME = "mistakes.png"
CAPTION = (
    "Held-out images that each placement's model (its best learning rate, the lowest seed) gets wrong and is surest of: the true "
    "class, what it is taken for, and the probability that the model gives to that. Some labels are themselves wrong or could be argued."
)


def calibration(summary: Summary) -> tuple[Chart, ...]:
    """Accuracy minus confidence by confidence; none where nothing was answered."""
    if not summary.answered:
        return ()
    traces = []
    for key, name, answers in _named(summary):
        bins = [each for each in answers.reliability if each[2] >= FEWEST]
        points = tuple((100 * confidence, 100 * (right - confidence)) for confidence, right, _ in bins)
        texts = tuple(
            f"{name}: {100 * confidence:.1f}% sure, {100 * right:.1f}% right, of {images:,} answers"
            for confidence, right, images in bins
        )
        traces.append(Trace(key=key, role="mean", label=name, points=points, texts=texts))
    gaps = [gap for trace in traces for gap in trace.y]
    errors = [
        f"{name} {row.best.figures['calibration']:.3f}"
        for name, row in zip(series.labels(summary), summary.placements, strict=True)
        if "calibration" in row.best.figures
    ]
    return (
        Chart(
            name="calibration",
            title="Calibration",
            caption=(
                "How much more often a model is right than it is sure, in percentage points, against how sure it is: the probability "
                "of its most probable class, in 15 bins of equal width, over the seeds that trained (all where none did) at the "
                "placement's best learning rate. On the "
                "dashed line a model is right as often as it says; above it, it is more cautious than it need be (as label smoothing "
                f"makes it), below it too sure. Bins of fewer than {FEWEST} answers are left out."
            ),
            description="Line chart of accuracy minus confidence against confidence. Expected calibration error, mean over seeds: "
            f"{'; '.join(errors)}.",
            keys=series.labels(summary),
            panels=(
                Panel(
                    title="",
                    x=axes.linear("confidence, %", [x for trace in traces for x in trace.x]),
                    y=axes.linear("accuracy − confidence, points", [0.0, *gaps]),
                    traces=tuple(traces),
                    reference=Reference(value=0.0, label="right as often as it says", along="y"),
                ),
            ),
            across=1,
        ),
    )


def mistakes_section(summary: Summary) -> str:
    """The mistakes on the page; empty where there are none."""
    groups = _mistakes(summary)
    if not groups:
        return ""
    body = "".join(
        f'<h3>{escape(name)}</h3>\n<ul class="pictures">\n{"".join(map(_item, mistakes))}</ul>\n'
        for name, mistakes in groups
    )
    return section("Mistakes", f"<p>{escape(CAPTION)}</p>\n", body)


def mistakes_png(summary: Summary) -> dict[str, bytes]:
    """The same as a file, by its name; none where there are none."""
    groups = _mistakes(summary)
    if not groups:
        return {}
    across = max(len(mistakes) for _, mistakes in groups)
    figure = Figure(
        figsize=(WIDTH_INCHES, 0.4 + 1.75 * len(groups)), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained"
    )
    panels = figure.subplots(len(groups), across, squeeze=False)
    for row, (name, mistakes) in zip(panels, groups, strict=True):
        for panel in row:
            panel.set_axis_off()
        for panel, mistake in zip(row, mistakes, strict=False):
            image = _opened(mistake)
            panel.imshow(image, cmap="gray" if image.mode == "L" else None, vmin=0, vmax=255)
            said = f"{mistake.label}\n→ {mistake.predicted}\n{mistake.confidence:.0%}".replace("$", r"\$")
            panel.set_title(said, fontsize=7, color=INK)
        row[0].text(
            -0.12, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=10, color=INK
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {NAME: buffer.getvalue()}


def _named(summary: Summary) -> list[tuple[int, str, Answered]]:
    """Key, label and answers of each placement that has some."""
    by_placement = {answers.placement: answers for answers in summary.answered}
    names = zip(series.labels(summary), summary.placements, strict=True)
    return [
        (key, name, by_placement[row.placement])
        for key, (name, row) in enumerate(names)
        if row.placement in by_placement
    ]


def _mistakes(summary: Summary) -> list[tuple[str, tuple[Mistake, ...]]]:
    """Label and mistakes of each placement that makes some."""
    return [(name, answers.mistakes) for _, name, answers in _named(summary) if answers.mistakes]


def _item(mistake: Mistake) -> str:
    label, predicted = escape(formats.plain(mistake.label)), escape(formats.plain(mistake.predicted))
    return (
        f'<li><img alt="{label}, taken for {predicted}" src="data:image/png;base64,{escape(mistake.image)}">'
        f"<span>{label}</span><span>→ {predicted}, {mistake.confidence:.0%}</span></li>\n"
    )


def _opened(mistake: Mistake) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(mistake.image)))
