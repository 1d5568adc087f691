import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from markupsafe import escape

from mixln.report.figures.comparison import prepare
from mixln.report.page.comparison import render
from mixln.report.wording import pages, tables, warnings
from mixln.report.wording.comparison import verdict
from mixln.report.wording.phrases import at_rate
from tests.report import samples

EVERY = (samples.usual, samples.one_seed, samples.several_rates, samples.eight, samples.bare, samples.hostile)


class Reader(HTMLParser):
    """The tags of a page, and the text between them by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=EVERY, ids=lambda make: make.__name__)
def read(request: pytest.FixtureRequest) -> tuple[str, Reader]:
    text = render(request.param())
    return text, Reader(text)


def test_nothing_is_loaded(read: tuple[str, Reader]) -> None:
    _, reader = read
    for _, attributes in reader.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in reader.tags}


def test_only_our_scripts_may_run(read: tuple[str, Reader]) -> None:
    text, reader = read
    assert [script.get("type") for script in reader.all("script")] == ["application/json", None, None]
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = [meta["content"] for meta in reader.all("meta") if meta.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src ")
    assert re.findall(r"sha256-([^']+)", policy) == digests
    assert len(digests) == 2


def test_headings_are_in_order(read: tuple[str, Reader]) -> None:
    _, reader = read
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert reader.all("html")[0]["lang"] == "en"


def test_tables_and_figures_can_be_read_aloud(read: tuple[str, Reader]) -> None:
    _, reader = read
    assert all(heading.get("scope") in ("col", "row", "colgroup") for heading in reader.all("th"))
    plots = [div for div in reader.all("div") if div.get("class") == "plot"]
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(figure["aria-labelledby"] in identifiers for figure in reader.all("figure"))


@pytest.mark.parametrize("make", EVERY)
def test_figures_travel_as_json(make) -> None:
    summary = make()
    text = render(summary)
    data = re.search(r'<script type="application/json" id="panels">(.*?)</script>', text, flags=re.DOTALL)
    assert data is not None
    assert not set("<>&") & set(data[1])
    panels = json.loads(data[1])
    assert list(panels) == [f"{chart.name}-{i}" for chart in prepare(summary) for i in range(len(chart.panels))]


def test_the_verdict_comes_first_then_warnings_then_the_table() -> None:
    summary = samples.usual()
    text = render(summary)
    first, warning = verdict(summary)[0], warnings.sentences(summary.warnings)[0]
    places = [text.index(mark) for mark in (escape(first), escape(warning), "<table", "<figure", "<details")]
    assert places == sorted(places)
    assert f"<h2>{pages.WARNINGS}" in text
    assert f"<h2>{pages.WARNINGS}" not in render(samples.one_seed())


def test_everything_is_on_the_page() -> None:
    summary = samples.several_rates()
    reader = Reader(render(summary))
    cells = [cell.strip() for tag in ("td", "th", "span") for cell in reader.text[tag]]
    assert {"−7.7%", "[−16.5, +2.0]", "0.0003", "diverged", "model.num_hidden_layers"} <= set(cells)
    assert any("torch 2.13.0" in cell for cell in cells)
    assert pages.every_trial(24) in reader.text["summary"]
    assert {tables.TUNED, at_rate(0.001)} <= set(cells)


def test_hostile_names_are_text() -> None:
    reader = Reader(render(samples.hostile()))
    everything = "".join("".join(parts) for tag, parts in reader.text.items() if tag != "script")
    assert samples.HOSTILE in everything
    assert "alert(2)" in everything
