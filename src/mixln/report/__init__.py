"""Shows what a comparison or a diagnosis found: tables, figures and one HTML page. It reads records and measures nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mixln.compare.results import SUMMARY, Summary
from mixln.diagnostics.results import DIAGNOSES, Diagnoses
from mixln.evaluation.results import EVALUATION, Evaluation
from mixln.files import write_atomic
from mixln.recipes import RECIPES
from mixln.recipes.results import AS_PUBLISHED, REPRODUCTION, AsPublished, Reproduction
from mixln.report import papers, reproduction, reproduction_page, search, stress
from mixln.report.chain_tables import chain_markdown, terminal_chain
from mixln.report.charts import prepare
from mixln.report.diagnosis import charts_of, of_summary
from mixln.report.diagnosis_page import render_diagnosis
from mixln.report.figures import png
from mixln.report.grid import markdown
from mixln.report.layer_table import terminal_diagnosis
from mixln.report.page import render
from mixln.report.pictures import mistakes_png
from mixln.report.series import Chart
from mixln.report.tables import markdown_table, terminal_table
from mixln.report.task_table import markdown_evaluation, terminal_evaluation
from mixln.report.tuned_table import terminal_tuned, tuned_notes
from mixln.runs.schema import Schema
from mixln.search.results import SEARCH, STRESS, Search, Stress

__all__ = [
    "charts_of",
    "markdown_table",
    "reproductions",
    "terminal_chain",
    "terminal_diagnosis",
    "terminal_evaluation",
    "terminal_table",
    "terminal_tuned",
    "tuned_notes",
    "write",
    "write_diagnosis",
    "write_evaluation",
    "write_reproduction",
    "write_search",
    "write_stress",
]


def write(summary: Summary, folder: Path) -> list[Path]:
    """Writes `results.json`, `table.md`, PNG figures and `report.html` into a folder, which is made if it is missing.

    Each file is replaced as a whole or not at all; a later call replaces them. The figures are the four of the training, and
    those of the diagnoses, whose names begin with `diagnosis-`; of image classifiers also their calibration and mistakes.

    :returns: the paths, in that order.
    """
    return _write(
        folder,
        {"results.json": _json(SUMMARY, summary), "table.md": markdown_table(summary) + chain_markdown(summary)}
        | _pngs((*prepare(summary), *of_summary(summary)))
        | mistakes_png(summary)
        | {"report.html": render(summary)},
    )


def write_diagnosis(diagnoses: Diagnoses, folder: Path) -> list[Path]:
    """Writes `diagnosis.json`, a PNG for each figure and `report.html` into a folder, which is made if it is missing.

    Each file is replaced as a whole or not at all; a later call replaces them, and removes figures of an earlier one that it does
    not have.

    :returns: the paths, in that order.
    """
    figures = _pngs(charts_of(diagnoses.models))
    earlier = _earlier(folder / "diagnosis.json")
    paths = _write(
        folder, {"diagnosis.json": _json(DIAGNOSES, diagnoses)} | figures | {"report.html": render_diagnosis(diagnoses)}
    )
    for stale in earlier - set(paths):
        stale.unlink(missing_ok=True)
    return paths


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes `evaluation.json`, with the answer to every question, and `table.md` into a folder, which is made if it is missing."""
    return _write(
        folder, {"evaluation.json": _json(EVALUATION, evaluation), "table.md": markdown_evaluation(evaluation)}
    )


def write_stress(found: Stress, folder: Path) -> list[Path]:
    """Writes `stress.json`, `stress.md`, PNG figures and `report.html` into a folder."""
    return _write(
        folder,
        {"stress.json": _json(STRESS, found), "stress.md": markdown(stress.table(found))}
        | _pngs(chart for chart in stress.charts(found) if chart.panels)
        | {"report.html": stress.render(found)},
    )


def write_search(found: Search, folder: Path) -> list[Path]:
    """Writes `tune.json`, `tune.md`, a PNG figure and `report.html` into a folder."""
    tables = "\n".join(
        markdown(table) for table in (search.finalists(found), search.rates(found), search.shorts(found))
    )
    return _write(
        folder,
        {"tune.json": _json(SEARCH, found), "tune.md": tables}
        | _pngs(chart for chart in (search.chart(found),) if chart.panels)
        | {"report.html": search.render(found)},
    )


def write_reproduction(found: Reproduction, folder: Path, beside: AsPublished | None = None) -> list[Path]:
    """Writes `reproduction.json`, `reproduction.md`, a PNG for each figure and `report.html` into a folder.

    :param beside: the same as the authors' code does: `as-published.json` and `as-published.md`.
    """
    charts = reproduction_page.charts(found)
    shown = reproduction.text(found, figures={f"{chart.name}.png": chart.title for chart in charts})
    texts: dict[str, str | bytes] = {"reproduction.json": _json(REPRODUCTION, found), "reproduction.md": shown}
    if beside is not None:
        texts |= {"as-published.json": _json(AS_PUBLISHED, beside), "as-published.md": reproduction.text_beside(beside)}
    return _write(
        folder,
        texts | _pngs(charts) | {"report.html": reproduction_page.render(found, beside)},
    )


def reproductions(found: Mapping[str, Reproduction], beside: Mapping[str, AsPublished], folder: Path) -> str:
    """What became of all recipes, in GitHub's Markdown, for a file beside the folder, into which their figures are drawn.

    :param found: recipe's name → its outcome, of those that were run.
    :param beside: recipe's name → that as the authors' code does.
    :raises KeyError: if a record names a quantity or a curve that is not known.
    """
    charts = {name: reproduction_page.charts(each) for name, each in found.items()}
    figures = {
        name: {f"{folder.name}/{name}-{chart.name}.png": chart.title for chart in drawn}
        for name, drawn in charts.items()
    }
    text = papers.document(RECIPES, found, beside, figures)
    for name, drawn in charts.items():
        _write(folder, {f"{name}-{file}": content for file, content in _pngs(drawn).items()})
    return text


def _earlier(path: Path) -> set[Path]:
    """The figures that belong to a diagnosis that was written before; none where it cannot be read."""
    try:
        models = DIAGNOSES.read(path).models
        return {path.parent / f"{chart.name}.png" for chart in charts_of(models)}
    except (OSError, ValueError):
        return set()


def _json(schema: Schema[Any], record: Any) -> str:
    return json.dumps(schema.marked(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _pngs(charts: Iterable[Chart]) -> dict[str, str | bytes]:
    return {f"{chart.name}.png": png(chart) for chart in charts}


def _write(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths
