"""Charts on the page: placeholders into which the script draws the panels, and the panels as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from mixln.report.figures.axes import Axis
from mixln.report.figures.interactive import plotly_figure
from mixln.report.figures.series import Chart, Panel
from mixln.report.figures.styles import HEAT, style
from mixln.report.wording.charts import EMPTY
from mixln.report.wording.pages import LEGEND, TOGGLE
from mixln.report.wording.phrases import capitalised


def figure(chart: Chart) -> str:
    """Title, caption, legend and placeholders of the panels."""
    title = f'<h3 id="{chart.name}">{escape(chart.title)}</h3>'
    text = f"<p>{escape(chart.caption)}</p>\n" if chart.panels else ""
    caption = f"<figcaption>\n{title}\n{text}</figcaption>\n"
    if not chart.panels:
        inside = f'<p class="empty">{EMPTY}</p>\n'
    else:
        panels = "".join(_panel(chart, index, panel) for index, panel in enumerate(chart.panels))
        layout = "panels two" if chart.across > 1 else "panels"
        inside = f'{_keys(chart.keys)}{_colours(chart.heat_scale)}<div class="{layout}">\n{panels}</div>\n'
    return f'<figure aria-labelledby="{chart.name}">\n{caption}{inside}</figure>\n'


def panels_json(charts: Iterable[Chart]) -> str:
    """Data and layout of every panel as JSON, by the identifier of its placeholder."""
    figures = {
        _panel_id(chart, index): plotly_figure(panel).to_plotly_json()
        for chart in charts
        for index, panel in enumerate(chart.panels)
    }
    # <, > and & are escaped, so that no text can end the script element.
    text = json.dumps(figures, default=lambda part: part.to_plotly_json(), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _panel_id(chart: Chart, index: int) -> str:
    return f"{chart.name}-{index}"


def _keys(names: Sequence[str]) -> str:
    """The legend; its entries toggle their placement or model."""
    items = "".join(
        f'<li><button type="button" data-key="{key}" aria-pressed="true" title="{TOGGLE}">'
        f"{_sample(key)}{escape(name)}</button></li>\n"
        for key, name in enumerate(names)
    )
    return f'<ul class="keys" aria-label="{LEGEND}">\n{items}</ul>\n' if names else ""


def _sample(key: int) -> str:
    """A short line with the marker, as SVG."""
    look = style(key)
    dash = f' stroke-dasharray="{" ".join(f"{length * 1.6:g}" for length in look.dash)}"' if look.dash else ""
    return (
        '<svg width="30" height="14" viewBox="-15 -7 30 14" aria-hidden="true"><path d="M-15 0H15" '
        f'stroke="{look.colour}" stroke-width="2.2"{dash}/><path d="{look.marker.svg}" fill="{look.colour}"/></svg>'
    )


def _colours(scale: Axis | None) -> str:
    """The colour bar of a heat map."""
    if scale is None:
        return ""
    ticks = "".join(f'<span style="left: {100 * scale.share(value):g}%">{text}</span>' for value, text in scale.ticks)
    return (
        f'<div class="colours"><p>{escape(scale.label)}</p>'
        f'<div style="background: linear-gradient(to right, {", ".join(HEAT)})"></div><p>{ticks}</p></div>\n'
    )


def _panel(chart: Chart, index: int, panel: Panel) -> str:
    names = 0 if panel.y.label else len(panel.y.ticks)
    height = 6 + 3 * names if names else 27 if chart.across == 1 else 20
    label = chart.description if index == 0 else f"{chart.title}: {panel.title}"
    model = "" if panel.key is None else f' data-key="{panel.key}"'
    shape, size = ("plot square", "") if panel.heat else ("plot", f' style="--height: {height}rem"')
    return (
        f'<div class="panel"{model}>\n{_panel_title(panel)}<div class="{shape}" id="{_panel_id(chart, index)}" role="img" '
        f'aria-label="{escape(label)}"{size}></div>\n</div>\n'
    )


def _panel_title(panel: Panel) -> str:
    """The title in sentence case, or the name of a model with its marker."""
    if not panel.title:
        return ""
    if panel.key is None:
        return f"<h4>{escape(capitalised(panel.title))}</h4>\n"
    return f"<h4>{_sample(panel.key)} {escape(panel.title)}</h4>\n"
