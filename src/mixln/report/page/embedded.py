"""Charts on the page: placeholders into which the script draws the panels, and the panels as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from mixln.report.figures.axes import Axis
from mixln.report.figures.interactive import plotly_figure
from mixln.report.figures.series import Chart, Panel
from mixln.report.figures.styles import HEAT, style
from mixln.report.wording.charts import EMPTY
from mixln.report.wording.pages import LEGEND, TOGGLE
from mixln.report.wording.phrases import capitalised


def figure(chart: Chart) -> Markup:
    """Title, caption, legend and placeholders of the panels."""
    if not chart.panels:
        text, inside = "", Markup('<p class="empty">{}</p>\n').format(EMPTY)
    else:
        text = Markup("<p>{}</p>\n").format(chart.caption)
        panels = Markup().join(_panel(chart, index, panel) for index, panel in enumerate(chart.panels))
        layout = "panels two" if chart.across > 1 else "panels"
        inside = _keys(chart.keys) + _colours(chart.heat_scale)
        inside += Markup('<div class="{}">\n{}</div>\n').format(layout, panels)
    return Markup(
        '<figure aria-labelledby="{name}">\n<figcaption>\n<h3 id="{name}">{title}</h3>\n{text}</figcaption>\n{inside}</figure>\n'
    ).format(name=chart.name, title=chart.title, text=text, inside=inside)


def panels_json(charts: Iterable[Chart]) -> Markup:
    """Data and layout of every panel as JSON, by the identifier of its placeholder."""
    figures = {
        _panel_id(chart, index): plotly_figure(panel).to_plotly_json()
        for chart in charts
        for index, panel in enumerate(chart.panels)
    }
    # <, > and & are escaped, so that no text can end the script element.
    text = json.dumps(figures, default=lambda part: part.to_plotly_json(), allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _panel_id(chart: Chart, index: int) -> str:
    return f"{chart.name}-{index}"


def _keys(names: Sequence[str]) -> Markup:
    """The legend; its entries toggle their placement or model."""
    item = Markup('<li><button type="button" data-key="{}" aria-pressed="true" title="{}">{}{}</button></li>\n')
    items = Markup().join(item.format(key, TOGGLE, _sample(key), name) for key, name in enumerate(names))
    return Markup('<ul class="keys" aria-label="{}">\n{}</ul>\n').format(LEGEND, items) if names else Markup()


def _sample(key: int) -> Markup:
    """A short line with the marker, as SVG."""
    look = style(key)
    lengths = " ".join(f"{length * 1.6:g}" for length in look.dash)
    dash = Markup(' stroke-dasharray="{}"').format(lengths) if look.dash else ""
    return Markup(
        '<svg width="30" height="14" viewBox="-15 -7 30 14" aria-hidden="true"><path d="M-15 0H15" '
        'stroke="{colour}" stroke-width="2.2"{dash}/><path d="{marker}" fill="{colour}"/></svg>'
    ).format(colour=look.colour, dash=dash, marker=look.marker.svg)


def _colours(scale: Axis | None) -> Markup:
    """The colour bar of a heat map."""
    if scale is None:
        return Markup()
    tick = Markup('<span style="left: {:g}%">{}</span>')
    ticks = Markup().join(tick.format(100 * scale.share(value), text) for value, text in scale.ticks)
    return Markup(
        '<div class="colours"><p>{}</p><div style="background: linear-gradient(to right, {})"></div><p>{}</p></div>\n'
    ).format(scale.label, ", ".join(HEAT), ticks)


def _panel(chart: Chart, index: int, panel: Panel) -> Markup:
    names = 0 if panel.y.label else len(panel.y.ticks)
    height = 6 + 3 * names if names else 27 if chart.across == 1 else 20
    label = chart.description if index == 0 else f"{chart.title}: {panel.title}"
    model = "" if panel.key is None else Markup(' data-key="{}"').format(panel.key)
    shape, size = "plot", Markup(' style="--height: {}rem"').format(height)
    if panel.heat is not None:
        # Beside the map, the labels take about a seventh of its width.
        shape, size = "plot square", Markup(' style="--aspect: {:.3f}"').format(1 / min(1, panel.heat.aspect + 1 / 7))
    return Markup(
        '<div class="panel"{}>\n{}<div class="{}" id="{}" role="img" aria-label="{}"{}></div>\n</div>\n'
    ).format(model, _panel_title(panel), shape, _panel_id(chart, index), label, size)


def _panel_title(panel: Panel) -> Markup:
    """The title in sentence case, or the name of a model with its marker."""
    if not panel.title:
        return Markup()
    if panel.key is None:
        return Markup("<h4>{}</h4>\n").format(capitalised(panel.title))
    return Markup("<h4>{} {}</h4>\n").format(_sample(panel.key), panel.title)
