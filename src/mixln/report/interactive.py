"""Draws prepared panels with plotly, for the page. Legends, titles and captions are the page's."""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go

from mixln.report.axes import Axis
from mixln.report.series import Panel, Reference, Trace
from mixln.report.styles import style

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "#1f2328"
MUTED = "#57606a"
GRID = "#e6e8eb"
GAP = "&nbsp;&nbsp;"  # between a point and its text; plotly cuts plain blanks off


def plotly_figure(panel: Panel) -> go.Figure:
    """One panel; each trace's `meta` is the index of its placement, so that the page's legend can hide it."""
    figure = go.Figure(data=[_trace(trace, panel) for trace in panel.traces])
    if panel.reference is not None:
        figure.add_trace(_reference(panel.reference, panel))
    figure.update_layout(
        template=go.layout.Template(),
        font={"family": FONT, "size": 13, "color": MUTED},
        margin={"l": 8, "r": 14, "t": 10, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="closest",
        hoverlabel={"bgcolor": "white", "bordercolor": "#c8cdd3", "font": {"color": INK, "family": FONT}},
        dragmode="zoom",
        xaxis=_axis(panel.x),
        yaxis=_axis(panel.y),
    )
    return figure


def _trace(trace: Trace, panel: Panel) -> go.Scatter:
    look = style(trace.key)
    dash = ",".join(f"{length * 1.6:g}px" for length in look.dash) if look.dash else "solid"
    line: dict[str, Any] = {"color": look.colour}
    marker: dict[str, Any] = {"color": look.colour, "symbol": look.marker.plotly}
    match trace.role:
        case "training":
            mode, opacity, line = "lines", 0.35, line | {"width": 1.2}
        case "seed":
            mode, opacity, line = "lines", 0.6, line | {"width": 1}
        case "mean":
            mode, opacity, line = "lines+markers", 1.0, line | {"width": 2.2, "dash": dash}
            marker |= {"size": 7.5, "maxdisplayed": 26}
        case "dot":
            mode, opacity = "markers", 0.65
            marker |= {"symbol": "circle", "size": 6.5}
        case "center":
            mode, opacity, marker = "markers", 1.0, marker | {"size": 12, "line": {"width": 1, "color": "white"}}
        case "value" | "note":
            mode, opacity = "text", 1.0
        case "ended":
            mode, opacity = "markers", 1.0
            marker |= {"symbol": "x-thin", "size": 10, "line": {"width": 3, "color": look.colour}}
    return go.Scatter(
        x=trace.x,
        y=[y if math.isfinite(y) else None for y in trace.y],
        mode=mode,
        opacity=opacity,
        line=line,
        marker=marker,
        meta=trace.key,
        text=[f"{GAP}{_plain(trace.label)}{GAP}"] if mode == "text" else None,
        textposition="middle left" if trace.role == "note" else "middle right",
        textfont={"size": 13, "color": INK},
        hoverinfo="skip" if mode == "text" else None,
        hovertemplate=None if mode == "text" else _hover(trace, panel),
    )


def _hover(trace: Trace, panel: Panel) -> str:
    values = [
        f"{_plain(axis.label)} %{{{name}:,.4~g}}" for name, axis in (("x", panel.x), ("y", panel.y)) if axis.label
    ]
    return "<br>".join([f"<b>{_plain(trace.label)}</b>", *values]) + "<extra></extra>"


def _reference(reference: Reference, panel: Panel) -> go.Scatter:
    """The line and its label: at the right end of a horizontal one, at the lower end of a vertical one."""
    horizontal = reference.along == "y"
    axis = panel.y if horizontal else panel.x
    shown = axis.holds(reference.value)
    end = reference.value if shown else axis.high
    across = [end, end]
    before = axis.share(end) > 0.3
    ends = [panel.x.low, panel.x.high] if horizontal else [panel.y.high, panel.y.low]
    label = GAP + _plain(reference.label) + ("" if shown else " ↑" if horizontal else " →") + GAP
    return go.Scatter(
        x=ends if horizontal else across,
        y=across if horizontal else ends,
        mode="lines+text" if shown else "text",
        text=["", label],
        textposition=f"{'bottom' if horizontal and before else 'top'} {'left' if horizontal or before else 'right'}",
        textfont={"size": 12, "color": MUTED},
        line={"color": INK, "width": 1.3, "dash": "5px,4px"},
        hoverinfo="skip",
    )


def _axis(axis: Axis) -> dict[str, Any]:
    low, high = (math.log10(axis.low), math.log10(axis.high)) if axis.log else (axis.low, axis.high)
    settings: dict[str, Any] = {
        "type": "log" if axis.log else "linear",
        "range": [low, high],
        "title": {"text": _plain(axis.label), "standoff": 8, "font": {"size": 13, "color": INK}},
        "automargin": True,
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9aa1a9",
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#9aa1a9",
    }
    if axis.ticks:
        settings |= {
            "tickmode": "array",
            "tickvals": [value for value, _ in axis.ticks],
            "ticktext": [_plain(text) for _, text in axis.ticks],
        }
    else:
        settings |= {"nticks": 8, "tickformat": ",~g"}
    return settings


def _plain(text: str) -> str:
    """A name as it is: plotly would read tags in it, and formulas between dollar signs."""
    return html.escape(text, quote=False).replace("$", "&#36;")
