"""The most confident errors of image classifiers, as one image."""

from __future__ import annotations

import base64
import io

from matplotlib.figure import Figure
from PIL import Image

from mixln.compare.results import Misclassification, Summary
from mixln.report.figures.calibration import predicted
from mixln.report.figures.png import DOTS_PER_INCH, WIDTH_INCHES
from mixln.report.figures.styles import INK

NAME = "mistakes.png"


def errors(summary: Summary) -> list[tuple[str, tuple[Misclassification, ...]]]:
    """Label and errors of each placement with errors."""
    return [(name, answers.mistakes) for _, name, answers in predicted(summary) if answers.mistakes]


def errors_png(summary: Summary) -> dict[str, str | bytes]:
    """File name → image; empty without errors."""
    groups = errors(summary)
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
            text = f"{mistake.label}\n→ {mistake.predicted}\n{mistake.confidence:.0%}".replace("$", r"\$")
            panel.set_title(text, fontsize=7, color=INK)
        row[0].text(
            -0.12, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=10, color=INK
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {NAME: buffer.getvalue()}


def _opened(mistake: Misclassification) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(mistake.image)))
