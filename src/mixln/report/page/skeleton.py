"""The HTML skeleton of all reports: one self-contained file that needs neither a server nor a network.

HTML is `Markup`, which escapes all other text that is inserted into it. Figures are embedded as JSON with `<`, `>` and `&` escaped.
A content security policy allows only the page's own scripts, and forbids loading anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from mixln.report.figures.series import Chart
from mixln.report.page import embedded
from mixln.report.tables import grid
from mixln.report.tables.grid import TableGrid
from mixln.report.wording.pages import NO_VERDICT, VERDICT, WARNINGS, PageText

ICON = Markup(
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 13V3l6 6 6-6v10' "
    "fill='none' stroke='%230072B2' stroke-width='2.4'/%3E%3C/svg%3E"
)
PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style>
{style}</style>
</head>
<body>
<header>
<h1>{heading}</h1>
</header>
<main>
{body}</main>
<footer>
<p>{footer}</p>
</footer>
<script type="application/json" id="panels">{panels}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
""")


def page(words: PageText, *, body: Iterable[Markup], charts: Sequence[Chart]) -> Markup:
    """The page as HTML.

    :param body: sections.
    :param charts: the charts with placeholders in the body.
    :returns: about 5 MB, most of it plotly.js.
    """
    scripts = (_script(get_plotlyjs()), _script(_asset("page.js")))
    # The policy lists the scripts by digest, so that injected text cannot run as a script.
    sources = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:"
    return PAGE.format(
        policy=policy,
        title=words.title,
        icon=ICON,
        style=Markup(_asset("page.css")),
        heading=words.heading,
        body=Markup().join(body),
        footer=_marked(words.footer),
        panels=embedded.panels_json(charts),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
    )


def section(title: str, *parts: Markup) -> Markup:
    """A section with a heading."""
    return Markup("<section>\n<h2>{}</h2>\n{}</section>\n").format(title, Markup().join(parts))


def verdict(groups: Mapping[str, Sequence[str]]) -> Markup:
    """What can be concluded, at the top of the page.

    :param groups: subject → sentences; the subject is their heading unless it is empty.
    """
    known = {name: sentences for name, sentences in groups.items() if sentences}
    inside = grouped(known or {"": (NO_VERDICT,)})
    return Markup('<section class="verdict">\n<h2>{}</h2>\n{}</section>\n').format(VERDICT, inside)


def warnings(sentences: Sequence[str]) -> Markup:
    """The list of warnings; empty without sentences."""
    if not sentences:
        return Markup()
    return Markup('<section class="warnings">\n<h2>{}</h2>\n{}</section>\n').format(WARNINGS, _list(sentences))


def grouped(groups: Mapping[str, Sequence[str]]) -> Markup:
    """Lists of sentences, each below the name of its group; groups without sentences are omitted."""
    return Markup().join(
        (subheading(name) if name else Markup()) + _list(sentences) for name, sentences in groups.items() if sentences
    )


def subheading(title: str) -> Markup:
    return Markup("<h3>{}</h3>\n").format(title)


def titled(made: TableGrid) -> Markup:
    """A table under its title."""
    return subheading(made.title) + scroll(made.title, grid.html(made))


def scroll(label: str, table: Markup) -> Markup:
    """A table in a box that scrolls horizontally, also by keyboard."""
    return Markup('<div class="scroll" role="region" aria-label="{}" tabindex="0">\n{}</div>\n').format(label, table)


def closed(title: str, content: Markup) -> Markup:
    """A collapsed part of the page, opened by a click."""
    return Markup("<details>\n<summary>{}</summary>\n{}</details>\n").format(title, content)


def closed_pairs(title: str, pairs: Iterable[tuple[str, Any]]) -> Markup:
    """A collapsed table of names and values; empty without pairs."""
    row = Markup('<tr><th scope="row">{}</th><td>{}</td></tr>\n')
    rows = Markup().join(row.format(name, str(value)) for name, value in pairs)
    table = Markup('<table class="pairs">\n<tbody>\n{}</tbody>\n</table>\n').format(rows)
    return closed(title, scroll(title, table)) if rows else Markup()


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _value(value)


def _list(sentences: Iterable[str]) -> Markup:
    items = Markup().join(Markup("<li>{}</li>\n").format(_marked(sentence)) for sentence in sentences)
    return Markup("<ul>\n{}</ul>\n").format(items)


def _marked(sentence: str) -> Markup:
    """A sentence in HTML; text in backticks, a command or a file name, becomes code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _asset(name: str) -> str:
    return files("mixln.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """The text of a script as the browser parses it, with line feeds only; its digest must match that of the policy."""
    return source.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
