"""The page in a real browser, without a network."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixln.compare.results import Summary
from mixln.diagnostics.results import Diagnoses
from mixln.report.figures.comparison import prepare
from mixln.report.figures.diagnosis import charts_of, of_summary
from mixln.report.figures.series import Chart
from mixln.report.page.comparison import render
from mixln.report.page.diagnosis import render_diagnosis
from mixln.report.wording.phrases import layers
from tests.conftest import NEEDS
from tests.report import diagnosis_samples, samples

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.long,
    pytest.mark.needs("chromium"),
]

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVERY = (
    samples.usual,
    samples.several_rates,
    samples.eight,
    samples.bare,
    samples.hostile,
    diagnosis_samples.compared,
    diagnosis_samples.one,
    diagnosis_samples.four,
    diagnosis_samples.complete,
    diagnosis_samples.bare,
    diagnosis_samples.mixed,
    diagnosis_samples.hostile,
)
DESKTOP, PHONE = 1280, 390


@pytest.fixture(scope="module")
def browser() -> Iterator:
    found = next(path for name in NEEDS["chromium"] if (path := shutil.which(name)))
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield started
        started.close()


def shown(record: Summary | Diagnoses) -> tuple[str, tuple[Chart, ...]]:
    """A page with its charts."""
    if isinstance(record, Diagnoses):
        return render_diagnosis(record), charts_of(record.models)
    return render(record), (*prepare(record), *of_summary(record))


class Visit:
    """A page that is opened; what it asks for and what it complains about is trouble."""

    def __init__(self, browser, folder: Path, record: Summary | Diagnoses, width: int) -> None:
        text, charts = shown(record)
        self.trouble: list[str] = []
        self.panels = {f"{chart.name}-{i}": panel for chart in charts for i, panel in enumerate(chart.panels)}
        file = folder / "report.html"
        file.write_text(text, encoding="utf-8")
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, is_mobile=width == PHONE, has_touch=width == PHONE
        )
        self.page.on("console", lambda message: self.trouble.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.route("**/*", lambda route: self.answer(route, file.as_uri()))
        self.page.goto(file.as_uri())
        self.wait_until(lambda: self.page.locator(".plot .plot-container").count() >= len(self.panels))

    def answer(self, route, own: str) -> None:
        if route.request.url == own or route.request.url.startswith("data:"):
            route.continue_()
        else:
            self.trouble.append(f"request: {route.request.url}")
            route.abort()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Waits for what the page does in its own time (drawing, a change of width), 30 s at most.

        Whether it came is for the caller to assert: a busy machine may take any time, and the assertion says what is wrong.
        """
        end = time.monotonic() + 30
        while not holds() and time.monotonic() < end:
            self.page.wait_for_timeout(50)

    def scroll_width(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth")

    def check(self, width: int) -> None:
        """Every panel is drawn, and nothing is wider than the window."""
        self.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        self.wait_until(lambda: self.scroll_width() <= width)
        assert self.scroll_width() <= width
        assert self.page.evaluate("document.querySelector('.verdict').getBoundingClientRect().top") < 250
        assert self.page.locator(".plot .plot-container").count() == len(self.panels)
        for name, panel in self.panels.items():
            box = self.page.locator(f"#{name} .main-svg").first.bounding_box()
            assert box is not None
            assert 250 < box["width"] <= width
            assert box["height"] > 100
            drawn = self.page.locator(f"#{name} :is(.scatterlayer .trace, .barlayer .trace)")
            assert drawn.count() >= len(panel.traces)
            assert (drawn.locator("path").count() > 0) == bool(panel.traces)
            assert self.page.locator(f"#{name} .heatmaplayer image").count() == (panel.heat is not None)
        assert self.page.locator("img").count() == 0
        assert self.trouble == []


@pytest.mark.parametrize("make", EVERY)
def test_the_page_works_offline_and_after_a_change_of_width(browser, tmp_path: Path, make) -> None:
    visit = Visit(browser, tmp_path, make(), DESKTOP)
    visit.check(DESKTOP)
    visit.page.set_viewport_size({"width": PHONE, "height": 844})
    visit.check(PHONE)
    visit.page.close()


def test_the_page_works_on_a_phone(browser, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path, samples.usual(), PHONE)
    visit.check(PHONE)
    table = visit.page.locator(".scroll").first
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    visit.page.close()


def test_the_legend_hides_a_placement_in_every_figure(browser, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path, samples.usual(), DESKTOP)
    lines = visit.page.locator("#gradients-0 .scatterlayer path.js-line")
    button = visit.page.locator("button[data-key='1']")
    before = lines.count()
    button.first.click()
    visit.wait_until(lambda: lines.count() == before - 1)
    assert lines.count() == before - 1
    assert {each.get_attribute("aria-pressed") for each in button.all()} == {"false"}
    button.last.click()
    visit.wait_until(lambda: lines.count() == before)
    assert lines.count() == before
    assert visit.trouble == []
    visit.page.close()


def test_the_legend_hides_a_model_with_the_panels_that_are_its_own(browser, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path, diagnosis_samples.four(), DESKTOP)
    lines = visit.page.locator("#residual-0 .scatterlayer path.js-line")
    own = visit.page.locator("#angular-1, #drops-1, #gates-1")
    button = visit.page.locator("button[data-key='1']")

    def drawn() -> list[int]:
        return [lines.count(), sum(plot.is_visible() for plot in own.all())]

    assert drawn() == [4, 3]
    button.first.click()
    visit.page.set_viewport_size({"width": 900, "height": 900})
    visit.wait_until(lambda: drawn() == [3, 0])
    assert drawn() == [3, 0]
    button.last.click()
    visit.wait_until(lambda: drawn() == [4, 3])
    assert drawn() == [4, 3]
    visit.check(900)
    visit.page.close()


def test_cells_are_squares(browser, tmp_path: Path) -> None:
    for width in (DESKTOP, PHONE):
        visit = Visit(browser, tmp_path, diagnosis_samples.four(), width)
        for index in range(4):
            box = visit.page.locator(f"#angular-{index} .heatmaplayer image").bounding_box()
            assert box["width"] == pytest.approx(box["height"], rel=0.02)
        visit.page.close()


def test_a_cell_and_a_bar_say_in_words_what_they_are(browser, tmp_path: Path) -> None:
    visit = Visit(browser, tmp_path, diagnosis_samples.four(), DESKTOP)
    assert f"{layers(1, 6)}: " in hovered(visit, "#angular-0 .heatmaplayer image", 0.04, 0.54)
    assert f"{layers(1, 1)}: +" in hovered(visit, "#drops-0 .barlayer .point path", 0.3, 0.5)
    visit.page.close()


def hovered(visit: Visit, selector: str, x: float, y: float) -> str:
    """What is said where one points at a share of the first such element's width and height."""
    place = visit.page.locator(selector).first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    texts = visit.page.locator(".hoverlayer .hovertext")
    visit.wait_until(lambda: texts.count() > 0)
    return " ".join(texts.all_text_contents())
