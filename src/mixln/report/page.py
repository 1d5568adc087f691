"""One page, `report.html`, that shows a whole comparison and needs nothing but itself: no server, no network.

Every text that comes from names, settings or errors passes through `html.escape`; figures travel as JSON whose `<`, `>` and `/`
are escaped; and a content security policy lets the browser run the page's own scripts and load nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

from plotly.offline import get_plotlyjs

from mixln.compare.results import Summary, TrialResult
from mixln.report import formats, tables
from mixln.report.charts import prepare
from mixln.report.interactive import plotly_figure
from mixln.report.series import Chart, Panel
from mixln.report.styles import style
from mixln.report.tables import Column, Pieces

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 13V3l6 6 6-6v10' "
    "fill='none' stroke='%230072B2' stroke-width='2.4'/%3E%3C/svg%3E"
)
TRIALS = (
    "placement",
    "init",
    "learning rate",
    "seed",
    "status",
    "reason",
    "step",
    "perplexity",
    "bits per byte",
    "seconds",
)


def render(summary: Summary) -> str:
    """The page as HTML.

    :returns: about 5 MB, nearly all of it plotly.js.
    """
    shown = prepare(summary)
    names = ", ".join(formats.plain(row.title) for row in summary.placements)
    scripts = (_script(get_plotlyjs()), _script(_asset("page.js")))
    # The policy names the scripts by their digests, so that no other text can become one.
    sources = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:"
    body = (
        _verdict(summary),
        _warnings(summary),
        _section("Results", _results(summary)),
        _section("Figures", *(_figure(chart) for chart in shown)),
        _section("Details", *_details(summary)),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mixln compare: {escape(names)}</title>
<link rel="icon" href="{ICON}">
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>Comparison of normalization placements: {escape(names)}</h1>
</header>
<main>
{"".join(body)}</main>
<footer>
<p>Written by <code>mixln compare</code>. The same numbers are in <code>results.json</code>, the table in
<code>table.md</code>, and the figures as PNG files beside this page.</p>
</footer>
<script type="application/json" id="panels">{_panels_json(shown)}</script>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("mixln.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """The text of a script as the browser will see it, which turns every line break into a line feed."""
    return source.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _panels_json(shown: Iterable[Chart]) -> str:
    figures = {
        _panel_id(chart, index): plotly_figure(panel).to_plotly_json()
        for chart in shown
        for index, panel in enumerate(chart.panels)
    }
    text = json.dumps(figures, default=lambda part: part.to_plotly_json(), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _panel_id(chart: Chart, index: int) -> str:
    return f"{chart.name}-{index}"


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{''.join(parts)}</section>\n"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences) + "</ul>\n"


def _verdict(summary: Summary) -> str:
    sentences = summary.verdict or ("Nothing can be concluded.",)
    return f'<section class="verdict">\n<h2>Verdict</h2>\n{_list(sentences)}</section>\n'


def _warnings(summary: Summary) -> str:
    if not summary.warnings:
        return ""
    return f'<section class="warnings">\n<h2>Warnings</h2>\n{_list(summary.warnings)}</section>\n'


def _scroll(label: str, table: str) -> str:
    """A table in a box of its own that scrolls sideways, by keyboard too."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n{table}</div>\n'


def _results(summary: Summary) -> str:
    columns = tables.columns(summary)
    body = "".join(_result_row(columns, row) for row in tables.rows(summary, columns))
    caption = f"<caption><span>{escape(tables.caption(summary))}</span></caption>\n"
    head = f"<thead>\n{_result_head(summary, columns)}</thead>\n"
    return _scroll(
        "Results by placement", f'<table class="results">\n{caption}{head}<tbody>\n{body}</tbody>\n</table>\n'
    )


def _result_head(summary: Summary, columns: Sequence[Column]) -> str:
    """One row of headings, or two where columns stand in groups."""
    if not any(column.group for column in columns):
        return "<tr>" + "".join(_heading(column, column.heading) for column in columns) + "</tr>\n"
    first = second = ""
    for _, run in groupby(columns, key=lambda column: column.group):
        members = list(run)
        title = tables.group_title(summary, members[0].group)
        if not title:
            first += "".join(_heading(column, column.heading, ' rowspan="2"') for column in members)
        else:
            first += f'<th scope="colgroup" colspan="{len(members)}">{escape(title)}</th>'
            second += "".join(_heading(column, column.sub) for column in members)
    return f"<tr>{first}</tr>\n<tr>{second}</tr>\n"


def _heading(column: Column, text: str, more: str = "") -> str:
    number = ' class="number"' if column.kind == "number" else ""
    return f'<th scope="col"{number}{more}>{escape(text)}</th>'


def _result_row(columns: Sequence[Column], row: Sequence[Pieces]) -> str:
    cells = ""
    for column, pieces in zip(columns, row, strict=True):
        if column.kind == "name":
            codes = "".join(f" <code>{escape(piece)}</code>" for piece in pieces[1:])
            cells += f'<th scope="row">{escape(pieces[0])}{codes}</th>'
        else:
            number = ' class="number"' if column.kind == "number" else ""
            cells += f"<td{number}>{' '.join(f'<span>{escape(piece)}</span>' for piece in pieces)}</td>"
    return f"<tr>{cells}</tr>\n"


def _figure(chart: Chart) -> str:
    title = f'<h3 id="{chart.name}">{escape(chart.title)}</h3>'
    text = f"<p>{escape(chart.caption)}</p>\n" if chart.panels else ""
    caption = f"<figcaption>\n{title}\n{text}</figcaption>\n"
    if not chart.panels:
        inside = '<p class="empty">Nothing was recorded.</p>\n'
    else:
        panels = "".join(_panel(chart, index, panel) for index, panel in enumerate(chart.panels))
        layout = "panels two" if chart.across > 1 else "panels"
        inside = f'{_keys(chart.keys)}<div class="{layout}">\n{panels}</div>\n'
    return f'<figure aria-labelledby="{chart.name}">\n{caption}{inside}</figure>\n'


def _keys(names: Sequence[str]) -> str:
    """The legend, whose entries hide and show their placement."""
    items = ""
    for key, name in enumerate(names):
        look = style(key)
        dash = f' stroke-dasharray="{" ".join(f"{length * 1.6:g}" for length in look.dash)}"' if look.dash else ""
        items += (
            f'<li><button type="button" data-key="{key}" aria-pressed="true" title="Show or hide in all figures">'
            f'<svg width="30" height="14" viewBox="-15 -7 30 14" aria-hidden="true"><path d="M-15 0H15" '
            f'stroke="{look.colour}" stroke-width="2.2"{dash}/><path d="{look.marker.svg}" fill="{look.colour}"/></svg>'
            f"{escape(name)}</button></li>\n"
        )
    return f'<ul class="keys" aria-label="Legend">\n{items}</ul>\n'


def _panel(chart: Chart, index: int, panel: Panel) -> str:
    title = f"<h4>{escape(panel.title[:1].upper() + panel.title[1:])}</h4>\n" if panel.title else ""
    names = 0 if panel.y.label else len(panel.y.ticks)
    height = 6 + 3 * names if names else 27 if chart.across == 1 else 20
    label = chart.description if index == 0 else f"{chart.title}: {panel.title}"
    return (
        f'<div class="panel">\n{title}<div class="plot" id="{_panel_id(chart, index)}" role="img" '
        f'aria-label="{escape(label)}" style="--height: {height}rem"></div>\n</div>\n'
    )


def _details(summary: Summary) -> Iterator[str]:
    rows = "".join(_trial_row(result) for result in summary.trials)
    head = "".join(f'<th scope="col"{_number(name)}>{name}</th>' for name in TRIALS)
    trials = f'<table class="trials">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n'
    yield _closed(f"Every trial ({len(summary.trials)})", _scroll("Every trial", trials))
    for label, pairs in (("Settings", _flat(summary.settings)), ("Versions, machine and data", summary.facts.items())):
        if known := tuple(pairs):
            yield _closed(label, _scroll(label, _pairs(known)))


def _closed(title: str, content: str) -> str:
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}</details>\n"


def _trial_row(result: TrialResult) -> str:
    trial = result.trial
    values = (
        trial.placement,
        trial.init,
        formats.learning_rate(trial.learning_rate),
        str(trial.seed),
        result.status,
        result.reason,
        f"{result.step:,}",
        formats.perplexity(result.perplexity),
        formats.bits(result.bits_per_byte),
        formats.seconds(result.seconds),
    )
    cells = [f'<th scope="row">{escape(values[0])}</th>']
    cells += [f"<td{_number(name)}>{escape(value)}</td>" for name, value in zip(TRIALS[1:], values[1:], strict=True)]
    return f"<tr>{''.join(cells)}</tr>\n"


def _number(name: str) -> str:
    if name in ("placement", "init", "status"):
        return ""
    return ' class="wide"' if name == "reason" else ' class="number"'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>\n' for name, value in pairs
    )
    return f'<table class="pairs">\n<tbody>\n{rows}</tbody>\n</table>\n'


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _value(value)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
