"""Draws prepared panels with plotly, for the page, which adds legends, titles and captions."""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go

from mixln.report.figures.axes import Axis
from mixln.report.figures.series import Heatmap, Panel, Reference, Trace
from mixln.report.figures.styles import GRID, HEAT, INK, MUTED, style

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GAP = "&nbsp;&nbsp;"  # between a point and its text; plotly strips plain spaces


def plotly_figure(panel: Panel) -> go.Figure:
    """One panel; each trace's `meta` is the index of its placement or model, so that the page's legend can toggle it."""
    figure = go.Figure(
        data=[_bars(trace, panel) if trace.role == "bar" else _trace(trace, panel) for trace in panel.traces]
    )
    if panel.heat is not None:
        figure.add_trace(_heat(panel.heat))
        figure.data = (figure.data[-1], *figure.data[:-1])  # behind the others
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
    if any(trace.role == "bar" for trace in panel.traces):
        figure.update_yaxes(zeroline=True, zerolinecolor=MUTED, zerolinewidth=1)
    if panel.heat is not None:
        square = {"constrain": "domain", "showgrid": False}
        figure.update_layout(xaxis=square, yaxis={**square, "scaleanchor": "x"})
    return figure


def _trace(trace: Trace, panel: Panel) -> go.Scatter:
    look = style(trace.key)
    dash = ",".join(f"{length * 1.6:g}px" for length in look.dash) if look.dash else "solid"
    line: dict[str, Any] = {"color": look.colour}
    marker: dict[str, Any] = {"color": look.colour, "symbol": look.marker.plotly}
    outlined = {"color": "white", "symbol": "circle", "line": {"width": 1.4, "color": INK}}
    match trace.role:
        case "training":
            mode, opacity, line = "lines", 0.35, line | {"width": 1.2}
        case "seed":
            mode, opacity, line = "lines", 0.6, line | {"width": 1}
        case "mean":
            mode, opacity, line = "lines+markers", 1.0, line | {"width": 2.2, "dash": dash}
            marker |= {"size": 7.5, "maxdisplayed": 26}
        case "span":
            mode, opacity, line = "lines", 1.0, {"color": INK, "width": 1.3}
        case "dot":
            mode, opacity = "markers", 0.65
            marker |= {"symbol": "circle", "size": 6.5}
        case "center":
            mode, opacity, marker = "markers", 1.0, marker | {"size": 12, "line": {"width": 1, "color": "white"}}
        case "open":
            mode, opacity, marker = "markers", 1.0, outlined | {"size": 7.5}
        case "least":
            mode, opacity, marker = "markers", 1.0, outlined | {"size": _dot(panel)}
        case "value" | "note":
            mode, opacity = "text", 1.0
        case "ended":
            mode, opacity = "markers", 1.0
            marker |= {"symbol": "x-thin", "size": 10, "line": {"width": 3, "color": look.colour}}
        case "bar":
            raise AssertionError("bars are drawn by _bars")
    return go.Scatter(
        **_places(trace, panel),
        mode=mode,
        opacity=opacity,
        line=line,
        marker=marker,
        meta=trace.key,
        text=[f"{GAP}{_plain(trace.label)}{GAP}"] if mode == "text" else None,
        textposition="middle left" if trace.role == "note" else "middle right",
        textfont={"size": 13, "color": INK},
        **({"hoverinfo": "skip"} if mode == "text" or trace.role == "span" else _hover(trace, panel)),
    )


def _dot(panel: Panel) -> float:
    """A marker size in pixels that leaves the colour of the cell visible."""
    return min(6.0, 120 / panel.heat.columns) if panel.heat else 6.0


def _bars(trace: Trace, panel: Panel) -> go.Bar:
    colour = style(trace.key).colour
    marker = {"color": colour, "opacity": 0.85}
    return go.Bar(**_places(trace, panel), width=0.72, marker=marker, meta=trace.key, **_hover(trace, panel))


def _places(trace: Trace, panel: Panel) -> dict[str, list[float | None]]:
    """The points as drawn, with gaps for values that are not finite."""
    return {
        "x": [panel.x.drawn(x) for x in trace.x],
        "y": [_finite(panel.y.drawn(y)) for y in trace.y],
    }


def _finite(value: float) -> float | None:
    """The value, or `None` (null) if JSON cannot represent it."""
    return value if math.isfinite(value) else None


def _heat(heat: Heatmap) -> go.Heatmap:
    steps = len(HEAT) - 1
    return go.Heatmap(
        x=list(range(1, heat.columns + 1)),
        y=list(range(1, len(heat.values) + 1)),
        z=[[*map(_finite, row), *[None] * (heat.columns - len(row))] for row in heat.values],
        hovertext=[[*map(_plain, row), *[""] * (heat.columns - len(row))] for row in heat.texts],
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        colorscale=[[index / steps, colour] for index, colour in enumerate(HEAT)],
        zmin=heat.scale.low,
        zmax=heat.scale.high,
        showscale=False,
        xgap=heat.gap,
        ygap=heat.gap,
    )


def _hover(trace: Trace, panel: Panel) -> dict[str, Any]:
    """The hover text of a point: its own text, or its coordinates. Those of a bent axis are stored, since plotly has only asinh values."""
    name = f"<b>{_plain(trace.label)}</b>"
    if trace.texts:
        return {"hovertext": [*map(_plain, trace.texts)], "hovertemplate": f"{name}<br>%{{hovertext}}<extra></extra>"}
    values = [
        f"{_plain(axis.label)} %{{{f'customdata[{index}]' if axis.bend else 'xy'[index]}:,.4~g}}"
        for index, axis in enumerate((panel.x, panel.y))
        if axis.label
    ]
    bent = {"customdata": trace.points} if panel.x.bend or panel.y.bend else {}
    return {"hovertemplate": "<br>".join([name, *values]) + "<extra></extra>", **bent}


def _reference(reference: Reference, panel: Panel) -> go.Scatter:
    """The line and its label, at the right end of a horizontal and the lower end of a vertical line."""
    horizontal = reference.along == "y"
    axis = panel.y if horizontal else panel.x
    shown = axis.holds(reference.value)
    end, label = reference.on(axis)
    across = [end, end]
    before = axis.share(end) > 0.3
    ends = [panel.x.low, panel.x.high] if horizontal else [panel.y.high, panel.y.low]
    return go.Scatter(
        x=ends if horizontal else across,
        y=across if horizontal else ends,
        mode="lines+text" if shown else "text",
        text=["", GAP + _plain(label) + GAP],
        textposition=f"{'bottom' if horizontal and before else 'top'} {'left' if horizontal or before else 'right'}",
        textfont={"size": 12, "color": MUTED},
        line={"color": INK, "width": 1.3, "dash": "5px,4px"},
        hoverinfo="skip",
    )


def _axis(axis: Axis) -> dict[str, Any]:
    low, high = (math.log10(end) if axis.log else axis.drawn(end) for end in (axis.low, axis.high))
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
            "tickvals": [axis.drawn(value) for value, _ in axis.ticks],
            "ticktext": [_plain(text) for _, text in axis.ticks],
        }
    else:
        settings |= {"nticks": 8, "tickformat": ",~g"}
    return settings


def _plain(text: str) -> str:
    """Escapes a name, in which plotly would interpret HTML tags, and formulas between dollar signs."""
    return html.escape(text, quote=False).replace("$", "&#36;")
