"""The words of pages: titles, headings of sections, and what stands at their end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixln.recipes.results import Reproduction
from mixln.report.wording.phrases import listed

VERDICT, WARNINGS, RESULTS, FIGURES, DETAILS = "Verdict", "Warnings", "Results", "Figures", "Details"
NO_VERDICT = "Nothing can be concluded."
SETTINGS = "Settings"
PROVENANCE, PROVENANCE_AND_DATA = "Versions and machine", "Versions, machine and data"
RESULTS_LABEL = "Results by placement"
EVERY_TRIAL, EVERY_RAMP, RAMPS, TRAINED = "Every trial", "Every ramp", "Ramps", "Trained"
ERRORS = "Most confident errors"
LAYERS = "Contribution of each layer"
NOT_MEASURED = "Not measured"
STEP_SETTINGS = "Settings of these steps"
AS_PUBLISHED = "As published"
READING = "What the paper leaves open, and how it is read"
LEGEND, TOGGLE = "Legend", "Show or hide in all figures"


@dataclass(frozen=True, kw_only=True)
class PageText:
    """The words around a page.

    :param title: in the window's bar; `heading` above everything.
    :param footer: parts of a paragraph; file names and commands between backticks.
    """

    title: str
    heading: str
    footer: str


def comparison(names: Iterable[str]) -> PageText:
    """The page of a comparison."""
    return PageText(
        title=f"mixln compare: {listed(names := tuple(names))}",
        heading=f"Comparison of normalization placements: {listed(names)}",
        footer="Written by `mixln compare`. The same numbers are in `results.json`, the table in `table.md`, and the figures as PNG files "
        "beside this page.",
    )


def diagnosis(names: Iterable[str]) -> PageText:
    """The page of a diagnosis."""
    return PageText(
        title=f"mixln diagnose: {listed(names := tuple(names))}",
        heading=f"{LAYERS}: {listed(names)}",
        footer="Written by `mixln diagnose`. The same numbers are in `diagnosis.json`, and the figures as PNG files beside this page.",
    )


def stress(names: str) -> PageText:
    """The page of a stress test."""
    return PageText(
        title=f"mixln stress: {names}",
        heading=f"Where training breaks: {names}",
        footer="Written by `mixln stress`. The same numbers are in `stress.json`, the table in `stress.md`.",
    )


SEARCH = PageText(
    title="mixln tune",
    heading="Share of Post-LN layers and learning rate",
    footer="Written by `mixln tune`. The same numbers are in `tune.json`, the tables in `tune.md`.",
)


def reproduction(found: Reproduction, heading: str) -> PageText:
    """The page of a recipe."""
    own = (
        " Its comparisons have reports of their own, each `report.html` in the folder of the model's name."
        if found.trained
        else ""
    )
    return PageText(
        title=f"mixln reproduce {found.recipe}",
        heading=heading,
        footer=f"Written by `{found.command}`. The same numbers are in `reproduction.json`, on the `scale` that it names, the tables in "
        f"`reproduction.md`.{own}",
    )


def every_trial(count: int) -> str:
    """The title of the table of trials."""
    return f"{EVERY_TRIAL} ({count})"


def chain(steps: Iterable[str]) -> str:
    """The heading of a chain's section."""
    return f"After the pre-training: {listed(steps)}"


def model_and_data(name: str) -> str:
    """The title of a model's facts."""
    return f"{name}: model and data"


def taken_for(label: str, predicted: str) -> str:
    """What a picture of an error is, for a reader who cannot see it."""
    return f"{label}, predicted as {predicted}"
