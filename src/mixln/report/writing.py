"""Writes reports to folders: JSON, tables, figures and one HTML page, all from records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixln.compare.chain_findings import chain_findings
from mixln.compare.findings import findings as comparison_findings
from mixln.compare.results import SUMMARY, Summary
from mixln.diagnostics.findings import findings as diagnosis_findings
from mixln.diagnostics.results import DIAGNOSES, Diagnoses
from mixln.evaluation.findings import findings as evaluation_findings
from mixln.evaluation.results import EVALUATION, Evaluation
from mixln.files import write_atomic
from mixln.findings import Finding
from mixln.recipes.results import AS_PUBLISHED, REPRODUCTION, DeviationStudy, Reproduction
from mixln.records import to_json
from mixln.report import markdown as documents
from mixln.report.figures import reproduction, search, stress
from mixln.report.figures.classifier_errors import errors_png
from mixln.report.figures.comparison import prepare
from mixln.report.figures.diagnosis import charts_of, of_summary
from mixln.report.figures.png import png
from mixln.report.figures.series import Chart
from mixln.report.page import comparison as comparison_page
from mixln.report.page import diagnosis as diagnosis_page
from mixln.report.page import reproduction as reproduction_page
from mixln.report.page import search as search_page
from mixln.report.page import stress as stress_page
from mixln.report.tables.chain import chain_markdown
from mixln.report.tables.comparison import markdown_table
from mixln.report.tables.evaluation import markdown_evaluation
from mixln.report.tables.grid import markdown
from mixln.report.tables.search import finalists, proxies, rates
from mixln.report.tables.stress import table
from mixln.runs.schema import Schema
from mixln.search.findings import search_findings, stress_findings
from mixln.search.results import SEARCH, STRESS, Search, Stress


def write(summary: Summary, folder: Path) -> list[Path]:
    """Writes `results.json`, `table.md`, PNG figures and `report.html` to a folder, which is created if missing.

    Existing files are replaced, each atomically. There are four figures of the training, those of the diagnoses, with the prefix
    `diagnosis-`, and for image classifiers also the calibration and the most confident errors.

    :returns: the paths, in that order.
    """
    stored = _json(
        SUMMARY,
        summary,
        findings=comparison_findings(summary),
        chain_findings=chain_findings(summary),
        diagnosis_findings={model.model: diagnosis_findings(model) for model in summary.diagnoses},
    )
    return _write(
        folder,
        {"results.json": stored, "table.md": markdown_table(summary) + chain_markdown(summary)}
        | _pngs((*prepare(summary), *of_summary(summary)))
        | errors_png(summary)
        | {"report.html": comparison_page.render(summary)},
    )


def write_diagnosis(diagnoses: Diagnoses, folder: Path) -> list[Path]:
    """Writes `diagnosis.json`, a PNG for each figure and `report.html` to a folder, which is created if missing.

    Existing files are replaced, each atomically. Figures of an earlier report that this one does not have are removed.

    :returns: the paths, in that order.
    """
    figures = _pngs(charts_of(diagnoses.models))
    earlier = _earlier(folder / "diagnosis.json")
    findings = {model.model: diagnosis_findings(model) for model in diagnoses.models}
    paths = _write(
        folder,
        {"diagnosis.json": _json(DIAGNOSES, diagnoses, findings=findings)}
        | figures
        | {"report.html": diagnosis_page.render_diagnosis(diagnoses)},
    )
    for stale in earlier - set(paths):
        stale.unlink(missing_ok=True)
    return paths


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Writes `evaluation.json`, with the answer to every question, and `table.md` to a folder, which is created if missing."""
    return _write(
        folder,
        {
            "evaluation.json": _json(EVALUATION, evaluation, findings=evaluation_findings(evaluation)),
            "table.md": markdown_evaluation(evaluation),
        },
    )


def write_stress(result: Stress, folder: Path) -> list[Path]:
    """Writes `stress.json`, `stress.md`, PNG figures and `report.html` to a folder."""
    return _write(
        folder,
        {"stress.json": _json(STRESS, result, findings=stress_findings(result)), "stress.md": markdown(table(result))}
        | _pngs(chart for chart in stress.charts(result) if chart.panels)
        | {"report.html": stress_page.render(result)},
    )


def write_search(result: Search, folder: Path) -> list[Path]:
    """Writes `tune.json`, `tune.md`, a PNG figure and `report.html` to a folder."""
    tables = "\n".join(markdown(grid) for grid in (finalists(result), rates(result), proxies(result)))
    return _write(
        folder,
        {"tune.json": _json(SEARCH, result, findings=search_findings(result)), "tune.md": tables}
        | _pngs(chart for chart in (search.chart(result),) if chart.panels)
        | {"report.html": search_page.render(result)},
    )


def write_reproduction(outcome: Reproduction, folder: Path, beside: DeviationStudy | None = None) -> list[Path]:
    """Writes `reproduction.json`, `reproduction.md`, a PNG for each figure and `report.html` to a folder.

    :param beside: the deviation study, written to `as-published.json` and `as-published.md`.
    """
    charts = reproduction.charts(outcome)
    shown = documents.outcome(outcome, figures={f"{chart.name}.png": chart.title for chart in charts})
    texts: dict[str, str | bytes] = {"reproduction.json": _json(REPRODUCTION, outcome), "reproduction.md": shown}
    if beside is not None:
        texts |= {"as-published.json": _json(AS_PUBLISHED, beside), "as-published.md": documents.as_published(beside)}
    return _write(
        folder,
        texts | _pngs(charts) | {"report.html": reproduction_page.render(outcome, beside)},
    )


def reproductions(outcomes: Mapping[str, Reproduction], beside: Mapping[str, DeviationStudy], folder: Path) -> str:
    """The outcomes of all recipes in GitHub's Markdown, for a file beside `folder`, to which their figures are written.

    :param outcomes: name of a recipe → its outcome, for those that were run.
    :param beside: name of a recipe → its deviation study.
    :raises KeyError: if a record names an unknown quantity or curve.
    """
    charts = {name: reproduction.charts(outcome) for name, outcome in outcomes.items()}
    figures = {
        name: {f"{folder.name}/{name}-{chart.name}.png": chart.title for chart in drawn}
        for name, drawn in charts.items()
    }
    text = documents.document(outcomes, beside, figures)
    for name, drawn in charts.items():
        _write(folder, {f"{name}-{file}": content for file, content in _pngs(drawn).items()})
    return text


def _earlier(path: Path) -> set[Path]:
    """The figures of an earlier diagnosis; none if it cannot be read."""
    try:
        models = DIAGNOSES.read(path).models
        return {path.parent / f"{chart.name}.png" for chart in charts_of(models)}
    except (OSError, ValueError):
        return set()


def _json(schema: Schema[Any], record: Any, **computed: Sequence[Finding] | Mapping[str, Sequence[Finding]]) -> str:
    """A record as JSON, followed by its computed entries."""
    added = {name: _listed(findings) for name, findings in computed.items() if findings}
    assert set(added) <= set(schema.computed)
    return json.dumps({**schema.marked(record), **added}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _listed(findings: Sequence[Finding] | Mapping[str, Sequence[Finding]]) -> Any:
    if isinstance(findings, Mapping):
        return {name: _listed(entry) for name, entry in findings.items()}
    return [{"kind": finding.kind, **to_json(finding)} for finding in findings]


def _pngs(charts: Iterable[Chart]) -> dict[str, str | bytes]:
    return {f"{chart.name}.png": png(chart) for chart in charts}


def _write(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths
