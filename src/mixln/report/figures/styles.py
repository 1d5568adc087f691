"""The style of each placement or model, the same in every figure: colour and marker, and dashes from the ninth on.

The colours are those of Okabe and Ito (2008), distinguishable by colour-blind readers, without yellow, which is too light on
white, and with a grey as in R's `palette.colors`.
"""

from __future__ import annotations

from dataclasses import dataclass

INK, MUTED, GRID = "#1f2328", "#57606a", "#e6e8eb"
"""Colours of titles and values, of axes and notes, and of grid lines."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C8C8C")
HEAT = (
    "#fde725",
    "#bddf26",
    "#7ad151",
    "#44bf70",
    "#22a884",
    "#21918c",
    "#2a788e",
    "#355f8d",
    "#414487",
    "#482475",
    "#440154",
)
"""Colours of a heat map at equal steps from the smallest value (yellow) to the largest (purple): reversed viridis,
which is perceptually uniform."""
DASHES = ((), (5.0, 2.0), (2.0, 1.5), (6.0, 1.5, 1.5, 1.5))


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A shape: its name in both libraries, and its SVG path around (0, 0) with a radius of about 5."""

    matplotlib: str
    plotly: str
    svg: str


MARKERS = (
    Marker(matplotlib="o", plotly="circle", svg="M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z"),
    Marker(matplotlib="s", plotly="square", svg="M-4-4H4V4H-4z"),
    Marker(matplotlib="^", plotly="triangle-up", svg="M0-5L5 4H-5z"),
    Marker(matplotlib="D", plotly="diamond", svg="M0-5.5L5.5 0L0 5.5L-5.5 0z"),
    Marker(matplotlib="v", plotly="triangle-down", svg="M0 5L5-4H-5z"),
    Marker(matplotlib="P", plotly="cross", svg="M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7z"),
    Marker(matplotlib="<", plotly="triangle-left", svg="M-5 0L4-5V5z"),
    Marker(matplotlib="h", plotly="hexagon", svg="M0-5L4.3-2.5V2.5L0 5L-4.3 2.5V-2.5z"),
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """The style of one placement or model.

    :param dash: lengths of dashes and gaps in line widths; empty for a solid line.
    """

    colour: str
    marker: Marker
    dash: tuple[float, ...]


def style(key: int) -> Style:
    """The style of the placement or model with index `key`; it repeats after 32."""
    return Style(
        colour=COLOURS[key % len(COLOURS)],
        marker=MARKERS[key % len(MARKERS)],
        dash=DASHES[key // len(COLOURS) % len(DASHES)],
    )
