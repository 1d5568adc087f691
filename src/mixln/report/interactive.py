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
        xaxis=_axis(panel.x, grid=True),
        yaxis=_axis(panel.y, grid=True),
    )
    return figure


def _trace(trace: Trace, panel: Panel) -> go.Scatter:
    look = style(trace.key)
    every = trace.role == "mean" and len(trace.points) <= 40
    dash = ",".join(f"{length * 1.6:g}px" for length in look.dash) if look.dash else "solid"
    line: dict[str, Any] = {"color": look.colour}
    marker: dict[str, Any] = {"color": look.colour, "symbol": look.marker.plotly}
    match trace.role:
        case "training":
            mode, opacity, line = "lines", 0.35, line | {"width": 1.2}
        case "seed":
            mode, opacity, line = "lines", 0.6, line | {"width": 1}
        case "mean":
            mode, opacity, line = "lines+markers" if every else "lines", 1.0, line | {"width": 2.4, "dash": dash}
            marker |= {"size": 7}
        case "dot":
            mode, opacity = "markers", 0.9
            marker |= {"symbol": "circle-open", "size": 11, "line": {"width": 1.6}}
        case "center":
            mode, opacity, marker = "markers", 1.0, marker | {"size": 12, "line": {"width": 1, "color": "white"}}
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
        cliponaxis=trace.role != "ended",
        hovertemplate=_hover(trace, panel),
    )


def _hover(trace: Trace, panel: Panel) -> str:
    values = [
        f"{_plain(axis.label)} %{{{name}:,.4~g}}" for name, axis in (("x", panel.x), ("y", panel.y)) if axis.label
    ]
    return "<br>".join([f"<b>{_plain(trace.label)}</b>", *values]) + "<extra></extra>"


def _reference(reference: Reference, panel: Panel) -> go.Scatter:
    """The dashed line, with its name at the right or the lower end."""
    value, horizontal = reference.value, reference.along == "y"
    ends = [panel.x.low, panel.x.high] if horizontal else [panel.y.high, panel.y.low]
    across = [value, value]
    return go.Scatter(
        x=ends if horizontal else across,
        y=across if horizontal else ends,
        mode="lines+text",
        text=["", _plain(reference.label)],
        textposition="top left",
        textfont={"size": 12, "color": MUTED},
        line={"color": INK, "width": 1.3, "dash": "5px,4px"},
        hoverinfo="skip",
    )


def _axis(axis: Axis, *, grid: bool) -> dict[str, Any]:
    low, high = (math.log10(axis.low), math.log10(axis.high)) if axis.log else (axis.low, axis.high)
    settings: dict[str, Any] = {
        "type": "log" if axis.log else "linear",
        "range": [low, high],
        "title": {"text": _plain(axis.label), "standoff": 8, "font": {"size": 13, "color": INK}},
        "automargin": True,
        "showgrid": grid,
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
    """A name as it is: plotly would read tags in it."""
    return html.escape(text, quote=False)
