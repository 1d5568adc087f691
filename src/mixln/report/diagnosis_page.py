"""The page of a diagnosis, `report.html`, and the part of a comparison's page that shows its diagnoses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mixln.diagnostics.results import Diagnoses, Diagnosis
from mixln.report.diagnosis import charts_of
from mixln.report.embedded import figure
from mixln.report.layer_table import block_columns, columns, html_table
from mixln.report.models import labels
from mixln.report.series import Chart
from mixln.report.skeleton import closed, closed_pairs, flat, grouped, page, scroll, section, verdict


def render_diagnosis(diagnoses: Diagnoses) -> str:
    """The page as HTML.

    :returns: about 5 MB, nearly all of it plotly.js.
    """
    models = diagnoses.models
    names, charts = labels(models), charts_of(models)
    return page(
        title=f"mixln diagnose: {', '.join(names)}",
        heading=f"What each layer contributes: {', '.join(names)}",
        body=(
            verdict(_by_model(models, [model.verdict for model in models])),
            section("Figures", *map(figure, charts)),
            _not_measured(models),
            section("Details", *_tables(models), *_facts(diagnoses)),
        ),
        footer="Written by <code>mixln diagnose</code>. The same numbers are in <code>diagnosis.json</code>, and the\n"
        "figures as PNG files beside this page.",
        charts=charts,
    )


def findings(models: Sequence[Diagnosis], charts: Sequence[Chart]) -> str:
    """A comparison's section on its models' layers; nothing without models.

    :param charts: those of the models, with names that are free on the page.
    """
    if not models:
        return ""
    sentences = grouped(_by_model(models, [model.verdict for model in models]))
    inside = (sentences, *map(figure, charts), *_tables(models))
    return section("What each layer contributes", *inside) + _not_measured(models)


def _not_measured(models: Sequence[Diagnosis]) -> str:
    """A quiet list; models that lack the same stand together."""
    names: dict[Sequence[str], list[str]] = {}
    for name, sentences in _by_model(models, [model.left_out for model in models]).items():
        names.setdefault(sentences, []).append(name)
    groups = grouped({", ".join(together): sentences for sentences, together in names.items()})
    return section("Not measured", f'<div class="quiet">\n{groups}</div>\n') if groups else ""


def _by_model(models: Sequence[Diagnosis], sentences: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """Sentences by the name of their model, which is left out where there is one."""
    return dict(zip(labels(models) if len(models) > 1 else ("",), sentences, strict=True))


def _tables(models: Sequence[Diagnosis]) -> Iterator[str]:
    """Closed tables: the layers of each model, and its blocks of layers."""
    for name, model in zip(labels(models), models, strict=True):
        title = f"{name}: every layer ({model.layers})"
        yield closed(title, scroll(title, html_table(columns(model))))
        for drops in filter(None, (model.drops, *model.tasks)):
            if drops.blocks:
                title = f"{name}: blocks of layers skipped, {drops.measure} ({len(drops.blocks)})"
                yield closed(title, scroll(title, html_table(block_columns(drops))))


def _facts(diagnoses: Diagnoses) -> Iterator[str]:
    for name, model in zip(labels(diagnoses.models), diagnoses.models, strict=True):
        yield closed_pairs(f"{name}: model and text", model.facts.items())
    yield closed_pairs("Settings", flat(diagnoses.settings))
    yield closed_pairs("Versions and machine", diagnoses.facts.items())
