import json
import re
from itertools import pairwise

import pytest
from markupsafe import escape

from mixln.report.figures.comparison import prepare
from mixln.report.figures.diagnosis import charts_of, of_summary
from mixln.report.page import skeleton
from mixln.report.page.comparison import render
from mixln.report.page.diagnosis import render_diagnosis
from mixln.report.wording import diagnosis as wording
from mixln.report.wording import diagnosis_charts, pages, removal, tables
from tests.report import diagnosis_samples as samples
from tests.report.page.test_comparison import Reader
from tests.report.samples import HOSTILE, usual

EVERY = (samples.one, samples.four, samples.complete, samples.bare, samples.mixed, samples.hostile)


@pytest.fixture(scope="module", params=EVERY, ids=lambda make: make.__name__)
def read(request: pytest.FixtureRequest) -> tuple[str, Reader]:
    text = render_diagnosis(request.param())
    return text, Reader(text)


def panels(text: str) -> dict[str, object]:
    data = re.search(r'<script type="application/json" id="panels">(.*?)</script>', text, flags=re.DOTALL)
    assert data is not None
    assert not set("<>&") & set(data[1])
    return json.loads(data[1])


def test_nothing_is_loaded_and_only_our_scripts_may_run(read: tuple[str, Reader]) -> None:
    _, reader = read
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in reader.tags}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert [script.get("type") for script in reader.all("script")] == ["application/json", None, None]
    (policy,) = [meta["content"] for meta in reader.all("meta") if meta.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_headings_are_in_order_and_identifiers_are_unique(read: tuple[str, Reader]) -> None:
    _, reader = read
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert all(figure["aria-labelledby"] in identifiers for figure in reader.all("figure"))
    assert all(heading.get("scope") in ("col", "row") for heading in reader.all("th"))


@pytest.mark.parametrize("make", EVERY)
def test_every_panel_has_its_place(make) -> None:
    record = make()
    text = render_diagnosis(record)
    expected = [f"{chart.name}-{i}" for chart in charts_of(record.models) for i in range(len(chart.panels))]
    assert list(panels(text)) == expected
    assert all(f'id="{name}"' in text for name in expected)


def test_sentences_stand_under_the_name_of_their_model() -> None:
    record = samples.four()
    text = render_diagnosis(record)
    marks = [
        part
        for model in record.models
        for part in (f"<h3>{model.model}</h3>", *map(escape, wording.verdict(model)[:2]))
    ]
    place = 0
    for mark in marks:
        place = text.index(mark, place)
    assert place < text.index("<figure")
    assert pages.NO_VERDICT not in text
    assert pages.NO_VERDICT in skeleton.verdict({})
    assert "<h3>SmolLM-135M</h3>" not in render_diagnosis(samples.one())


def test_what_was_not_measured_is_said_once_for_the_models_that_lack_it() -> None:
    text = render_diagnosis(samples.mixed())
    (lacks,) = wording.not_measured(samples.model("Pre-LN"))
    assert text.count(escape(lacks)) == 1
    assert "<h3>Pre-LN, vision</h3>" in text
    assert text.index(pages.NOT_MEASURED) > text.rindex("</figure>")


def test_tables_settings_and_facts_are_on_the_page() -> None:
    reader = Reader(render_diagnosis(samples.four()))
    titles = reader.text["summary"]
    assert tables.every_layer("HybridNorm*", 16) in titles
    assert tables.blocks("Pre-LN", "loss", 2) in titles
    assert {pages.SETTINGS, pages.PROVENANCE, pages.model_and_data("Mix-LN")} <= set(titles)
    cells = [cell for tag in ("td", "th") for cell in reader.text[tag]]
    assert {"text.sequences", "runs/Mix-LN", "2–3"} <= set(cells)
    assert len([table for table in reader.all("table") if table.get("class") == "layers"]) == 8


def test_the_colours_are_explained_once() -> None:
    text = render_diagnosis(samples.four())
    assert text.count('class="colours"') == 1
    assert "linear-gradient(to right, #fde725" in text
    assert text.count('class="plot square"') == 4
    assert diagnosis_charts.ANGLE_SCALE in text


def test_hostile_names_are_text() -> None:
    reader = Reader(render_diagnosis(samples.hostile()))
    everything = "".join("".join(parts) for tag, parts in reader.text.items() if tag != "script")
    assert HOSTILE in everything
    assert "alert(2)" in everything
    assert "\x1b" not in "".join(reader.text["summary"] + reader.text["h4"] + reader.text["title"])


def test_a_comparison_shows_the_diagnoses_of_its_models() -> None:
    summary = samples.compared()
    text = render(summary)
    assert list(panels(text)) == [
        f"{chart.name}-{i}" for chart in (*prepare(summary), *of_summary(summary)) for i in range(len(chart.panels))
    ]
    places = [text.index(mark) for mark in (f"<h2>{pages.FIGURES}", f"<h2>{pages.LAYERS}", f"<h2>{pages.DETAILS}")]
    assert places == sorted(places)
    assert escape(wording.verdict(summary.diagnoses[0])[0]) in text
    identifiers = [attributes["id"] for _, attributes in Reader(text).tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert pages.LAYERS not in render(usual())


def test_sets_and_experts_have_their_tables() -> None:
    (model,) = samples.complete().models
    text = render_diagnosis(samples.complete())
    assert model.selection is not None
    for title in (removal.title(model.model, model.selection), removal.experts_title(model.model)):
        assert f"<summary>{escape(title)}</summary>" in text
    assert str(escape(removal.caption(model.selection))) in text
    assert "8, 3, 9, 11" in text
    assert removal.experts_title("SmolLM-135M") not in render_diagnosis(samples.one())
