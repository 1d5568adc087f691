"""Draws prepared charts with matplotlib, for PNG files."""

from __future__ import annotations

import io
import math
import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from mixln.report.figures.axes import Axis
from mixln.report.figures.series import Chart, Heatmap, Panel, Reference, Trace
from mixln.report.figures.styles import GRID, HEAT, INK, MUTED, Style, style
from mixln.report.wording.charts import EMPTY

WIDTH_INCHES = 10.0
DOTS_PER_INCH = 140
_COLOURS = LinearSegmentedColormap.from_list("heat", HEAT)
BEHIND = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}


def png(chart: Chart) -> bytes:
    """The chart as a PNG file, 1400 pixels wide."""
    buffer = io.BytesIO()
    matplotlib_figure(chart).savefig(buffer, format="png")
    return buffer.getvalue()


def matplotlib_figure(chart: Chart) -> Figure:
    """The chart as a matplotlib figure: a grid of panels with one legend above."""
    if not chart.panels:
        return _empty(chart)
    down = math.ceil(len(chart.panels) / chart.across)
    across = _legend_columns(chart)
    legend_rows = math.ceil(len(chart.keys) / across)
    height = 0.9 + 0.28 * legend_rows + down * _panel_height(chart)
    layout = "compressed" if chart.heat_scale else "constrained"  # closes the gaps beside square panels
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, facecolor="white", layout=layout)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    grid = figure.subplots(down, chart.across, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index < len(chart.panels):
            _draw_panel(axes, chart.panels[index])
        else:
            axes.set_axis_off()
    if chart.heat_scale is not None:
        _colour_bar(figure, grid.ravel().tolist(), chart.heat_scale)
    handles = [_handle(style(key), _text(name)) for key, name in enumerate(chart.keys)]
    order = [
        index for column in range(across) for index in range(column, len(handles), across)
    ]  # matplotlib fills legends by column
    legend = figure.legend(
        handles=[handles[index] for index in order],
        title=_text(chart.title),
        title_fontproperties={"weight": "bold", "size": 14},
        alignment="left",
        loc="outside upper left",
        ncols=across,
        frameon=False,
        fontsize=10.5,
        labelcolor=INK,
        handlelength=2.4,
        columnspacing=1.6,
        borderaxespad=0.9,
    )
    legend.get_title().set_color(INK)
    return figure


def _empty(chart: Chart) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 1.4), dpi=DOTS_PER_INCH, facecolor="white")
    figure.text(0.018, 0.62, _text(chart.title), fontsize=14, fontweight="bold", color=INK)
    figure.text(0.018, 0.3, EMPTY, fontsize=12, color=MUTED)
    return figure


def _panel_height(chart: Chart) -> float:
    names = max((len(panel.y.ticks) for panel in chart.panels if not panel.y.label), default=0)
    if names:
        return max(2.6, 0.9 + 0.5 * names, 3.4 * (chart.across > 1))
    if chart.heat_scale is not None:
        square = 0.85 * WIDTH_INCHES / max(chart.across, 1.5)
        wide = max(panel.heat.aspect for panel in chart.panels if panel.heat)
        # Cells are square: a panel with more columns than rows needs less height, beside its title and labels.
        return square if wide >= 0.6 else max(2.4, 1.4 + 0.85 * WIDTH_INCHES / chart.across * wide)
    if chart.across == 1:
        return 4.8
    return 3.1 if len(chart.panels) > 2 else 3.9


def _legend_columns(chart: Chart) -> int:
    longest = max((len(name) for name in chart.keys), default=1)
    return max(1, min(len(chart.keys), int(110 / (longest + 9))))


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(_text(panel.title), loc="left", fontsize=11, color=INK)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa1a9")
    axes.tick_params(colors=MUTED, labelsize=10, length=3)
    if panel.heat is not None:
        _draw_heat(axes, panel.heat)
    for trace in panel.traces:
        _draw_trace(axes, trace, panel)
    _scale(axes, panel.x, "x")
    _scale(axes, panel.y, "y")
    if panel.reference is not None:
        _draw_reference(axes, panel, panel.reference)


def _draw_heat(axes: Axes, heat: Heatmap) -> None:
    axes.grid(False)
    axes.set_aspect("equal")
    rows = [[*row, *[math.nan] * (heat.columns - len(row))] for row in heat.values]
    edges = [[index + 0.5 for index in range(count + 1)] for count in (heat.columns, len(rows))]
    lines = {"edgecolors": "white", "linewidth": 0.6 * heat.gap}
    axes.pcolormesh(*edges, rows, cmap=_COLOURS, norm=_norm(heat.scale), zorder=1, **lines)


def _colour_bar(figure: Figure, grid: list[Axes], scale: Axis) -> None:
    bar = figure.colorbar(ScalarMappable(_norm(scale), _COLOURS), ax=grid, shrink=0.7, aspect=28, pad=0.02)
    bar.set_ticks([value for value, _ in scale.ticks], labels=[text for _, text in scale.ticks])
    bar.set_label(textwrap.fill(scale.label, 41), fontsize=10.5, color=INK)
    bar.ax.tick_params(colors=MUTED, labelsize=10, length=3)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _norm(scale: Axis) -> Normalize:
    return Normalize(scale.low, scale.high)


def _draw_trace(axes: Axes, trace: Trace, panel: Panel) -> None:
    look = style(trace.key)
    common = {"color": look.colour, "clip_on": True}
    outlined: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.0}
    x, y = [*map(panel.x.drawn, trace.x)], [*map(panel.y.drawn, trace.y)]
    marker = look.marker.matplotlib
    dash = (0, look.dash) if look.dash else "-"
    match trace.role:
        case "training":
            axes.plot(x, y, linewidth=0.9, alpha=0.35, zorder=2, **common)
        case "seed":
            axes.plot(x, y, linewidth=0.8, alpha=0.6, zorder=3, **common)
        case "mean":
            every = (0, max(1, math.ceil(len(x) / 26)))
            axes.plot(
                x, y, linestyle=dash, linewidth=1.9, marker=marker, markersize=5.5, markevery=every, zorder=5, **common
            )
        case "bar":
            axes.bar(x, y, 0.72, alpha=0.85, zorder=3, **common)
            axes.axhline(0, color=MUTED, linewidth=0.9, zorder=3.5)
        case "span":
            axes.plot(x, y, color=INK, linewidth=1.1, zorder=4)
        case "open":
            axes.plot(x, y, "o", markersize=5.5, zorder=5, **outlined)
        case "least":
            size = min(4.2, 100 / panel.heat.columns) if panel.heat else 4.2
            axes.plot(x, y, "o", markersize=size, zorder=5, **outlined)
        case "dot":
            axes.plot(x, y, "o", markersize=4.5, alpha=0.65, markeredgewidth=0, zorder=4, **common)
        case "center":
            axes.plot(x, y, marker, markersize=9.5, markeredgecolor="white", markeredgewidth=0.8, zorder=5, **common)
        case "value" | "note":
            side = 1 if trace.role == "value" else -1
            axes.annotate(
                _text(trace.label),
                (x[0], y[0]),
                (10 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=10,
                color=INK,
                bbox=BEHIND,
                zorder=7,
            )
        case "ended":
            axes.plot(x, y, "x", markersize=9, markeredgewidth=2.4, zorder=6, **common)


def _draw_reference(axes: Axes, panel: Panel, reference: Reference) -> None:
    """The line and its label, at the right end of a horizontal and the lower end of a vertical line."""
    line = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.1, "zorder": 1.5}
    horizontal = reference.along == "y"
    axis = panel.y if horizontal else panel.x
    if axis.holds(reference.value):
        (axes.axhline if horizontal else axes.axvline)(reference.value, **line)
    end, label = reference.on(axis)
    before = axis.share(end) > 0.3
    axes.annotate(
        _text(label),
        xy=(1, end) if horizontal else (end, 0),
        xycoords=("axes fraction", "data") if horizontal else ("data", "axes fraction"),
        xytext=(-4, -5 if before else 5) if horizontal else (-5 if before else 5, 5),
        textcoords="offset points",
        ha="right" if horizontal or before else "left",
        va="top" if horizontal and before else "bottom",
        fontsize=9.5,
        color=MUTED,
        bbox=BEHIND,
        zorder=7,
    )


def _scale(axes: Axes, axis: Axis, name: str) -> None:
    target = axes.xaxis if name == "x" else axes.yaxis
    if axis.log:
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}lim": (axis.drawn(axis.low), axis.drawn(axis.high))})
    target.set_label_text(_text(axis.label), fontsize=10.5, color=INK)
    target.set_minor_locator(NullLocator())
    if axis.ticks:
        target.set_major_locator(FixedLocator([axis.drawn(value) for value, _ in axis.ticks]))
        target.set_ticklabels([_text(text) for _, text in axis.ticks])
    else:
        target.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))


def _handle(look: Style, label: str) -> Line2D:
    dash = (0, look.dash) if look.dash else "-"
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=dash,
        linewidth=1.9,
        marker=look.marker.matplotlib,
        markersize=6,
        label=label,
    )


def _text(text: str) -> str:
    """Escapes dollar signs, which matplotlib would interpret as mathematics."""
    return text.replace("$", r"\$")
