"""Titles, headings and footers of the pages."""

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
AS_PUBLISHED = "With the authors' code"
READING = "Details that the paper leaves open, and our interpretation"
LEGEND, TOGGLE = "Legend", "Show or hide in all figures"


@dataclass(frozen=True, kw_only=True)
class PageText:
    """The text around a page.

    :param title: title of the browser window; `heading` is that of the page.
    :param footer: one paragraph, with file names and commands in backticks.
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
        heading=f"Stability limit of the learning rate: {names}",
        footer="Written by `mixln stress`. The same numbers are in `stress.json`, the table in `stress.md`.",
    )


SEARCH = PageText(
    title="mixln tune",
    heading="Share of Post-LN layers and learning rate",
    footer="Written by `mixln tune`. The same numbers are in `tune.json`, the tables in `tune.md`.",
)


def reproduction(outcome: Reproduction, heading: str) -> PageText:
    """The page of a recipe."""
    comparisons = (
        " Each comparison has its own `report.html`, in the folder named after its model." if outcome.trained else ""
    )
    return PageText(
        title=f"mixln reproduce {outcome.recipe}",
        heading=heading,
        footer=f"Written by `{outcome.command}`. The same numbers are in `reproduction.json`, on the `scale` given there, and the tables "
        f"in `reproduction.md`.{comparisons}",
    )


def every_trial(count: int) -> str:
    """Title of the table of trials."""
    return f"{EVERY_TRIAL} ({count})"


def chain(steps: Iterable[str]) -> str:
    """Heading of the section on a chain."""
    return f"After pre-training: {listed(steps)}"


def model_and_data(name: str) -> str:
    """Title of the facts on a model."""
    return f"{name}: model and data"


def taken_for(label: str, predicted: str) -> str:
    """Alternative text of a misclassified image."""
    return f"{label}, predicted as {predicted}"
