"""The HTML skeleton of all reports: one self-contained file that needs neither a server nor a network.

Every text from names, settings or errors passes through `html.escape`. Figures are embedded as JSON with `<`, `>` and `&` escaped.
A content security policy allows only the page's own scripts, and forbids loading anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from mixln.report.figures.series import Chart
from mixln.report.page import embedded
from mixln.report.wording.pages import NO_VERDICT, VERDICT, WARNINGS, PageText

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 13V3l6 6 6-6v10' "
    "fill='none' stroke='%230072B2' stroke-width='2.4'/%3E%3C/svg%3E"
)


def page(words: PageText, *, body: Iterable[str], charts: Sequence[Chart]) -> str:
    """The page as HTML.

    :param body: sections, as HTML.
    :param charts: the charts with placeholders in the body.
    :returns: about 5 MB, most of it plotly.js.
    """
    scripts = (_script(get_plotlyjs()), _script(_asset("page.js")))
    # The policy lists the scripts by digest, so that injected text cannot run as a script.
    sources = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(words.title)}</title>
<link rel="icon" href="{ICON}">
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(words.heading)}</h1>
</header>
<main>
{"".join(body)}</main>
<footer>
<p>{_marked(words.footer)}</p>
</footer>
<script type="application/json" id="panels">{embedded.panels_json(charts)}</script>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """A section with a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def verdict(groups: Mapping[str, Sequence[str]]) -> str:
    """The conclusions, at the top of the page.

    :param groups: subject → sentences; the subject is their heading unless it is empty.
    """
    known = {name: sentences for name, sentences in groups.items() if sentences}
    inside = grouped(known or {"": (NO_VERDICT,)})
    return f'<section class="verdict">\n<h2>{VERDICT}</h2>\n{inside}</section>\n'


def warnings(sentences: Sequence[str]) -> str:
    """The list of warnings; empty without sentences."""
    if not sentences:
        return ""
    return f'<section class="warnings">\n<h2>{WARNINGS}</h2>\n{_list(sentences)}</section>\n'


def grouped(groups: Mapping[str, Sequence[str]]) -> str:
    """Lists of sentences, each below the name of its group; groups without sentences are omitted."""
    return "".join(
        (f"<h3>{escape(name)}</h3>\n" if name else "") + _list(sentences)
        for name, sentences in groups.items()
        if sentences
    )


def scroll(label: str, table: str) -> str:
    """A table in a box that scrolls horizontally, also by keyboard."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n{table}</div>\n'


def closed(title: str, content: str) -> str:
    """A collapsed part of the page, opened by a click."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}</details>\n"


def closed_pairs(title: str, pairs: Iterable[tuple[str, Any]]) -> str:
    """A collapsed table of names and values; empty without pairs."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>\n' for name, value in pairs
    )
    table = f'<table class="pairs">\n<tbody>\n{rows}</tbody>\n</table>\n'
    return closed(title, scroll(title, table)) if rows else ""


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _value(value)


def _list(sentences: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{_marked(sentence)}</li>\n" for sentence in sentences) + "</ul>\n"


def _marked(sentence: str) -> str:
    """A sentence in HTML; text in backticks, a command or a file name, becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))


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
