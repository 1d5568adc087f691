"""The page of a diagnosis, `report.html`, and the section on diagnoses in the page of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from mixln.diagnostics.results import Diagnoses, Diagnosis
from mixln.report import names as naming
from mixln.report.figures.diagnosis import charts_of
from mixln.report.figures.series import Chart
from mixln.report.page.embedded import figure
from mixln.report.page.skeleton import closed, closed_pairs, flat, grouped, page, scroll, section, verdict
from mixln.report.tables.layers import block_columns, columns, html_table
from mixln.report.tables.removal import expert_columns, set_columns
from mixln.report.wording import diagnosis as words
from mixln.report.wording import facts, pages, removal, tables
from mixln.report.wording.diagnosis_charts import measure


def render_diagnosis(diagnoses: Diagnoses) -> Markup:
    """The page as HTML.

    :returns: about 5 MB, most of it plotly.js.
    """
    models, charts = diagnoses.models, charts_of(diagnoses.models)
    return page(
        pages.diagnosis(naming.models(models)),
        body=(
            verdict(_by_model(models, [words.verdict(model) for model in models])),
            section(pages.FIGURES, *map(figure, charts)),
            _not_measured(models),
            section(pages.DETAILS, *_sets(models), *_tables(models), *_facts(diagnoses)),
        ),
        charts=charts,
    )


def layers_section(models: Sequence[Diagnosis], charts: Sequence[Chart]) -> Markup:
    """A comparison's section on its models' layers; empty without models.

    :param charts: charts of the models; their names must be unique on the page.
    """
    if not models:
        return Markup()
    sentences = grouped(_by_model(models, [words.verdict(model) for model in models]))
    inside = (sentences, *map(figure, charts), *_sets(models), *_tables(models))
    return section(pages.LAYERS, *inside) + _not_measured(models)


def _not_measured(models: Sequence[Diagnosis]) -> Markup:
    """The list of missing measurements; models that lack the same ones are grouped."""
    names: dict[Sequence[str], list[str]] = {}
    for name, sentences in _by_model(models, [words.not_measured(model) for model in models]).items():
        names.setdefault(sentences, []).append(name)
    groups = grouped({", ".join(members): sentences for sentences, members in names.items()})
    quiet = Markup('<div class="quiet">\n{}</div>\n').format(groups)
    return section(pages.NOT_MEASURED, quiet) if groups else Markup()


def _by_model(models: Sequence[Diagnosis], sentences: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """Name of a model → its sentences; the name is empty if there is only one model."""
    return dict(zip(naming.models(models) if len(models) > 1 else ("",), sentences, strict=True))


def _tables(models: Sequence[Diagnosis]) -> Iterator[Markup]:
    """Collapsed tables: the layers of each model, and its blocks of layers."""
    for name, model in zip(naming.models(models), models, strict=True):
        title = tables.every_layer(name, model.layers)
        yield closed(title, scroll(title, html_table(columns(model))))
        for drops in filter(None, (model.drops, *model.tasks)):
            if drops.blocks:
                title = tables.blocks(name, measure(drops), len(drops.blocks))
                yield closed(title, scroll(title, html_table(block_columns(drops))))


def _sets(models: Sequence[Diagnosis]) -> Iterator[Markup]:
    """Tables of the sets that are removed together, and of the experts."""
    for name, model in zip(naming.models(models), models, strict=True):
        if model.selection:
            title = removal.title(name, model.selection)
            table = scroll(title, html_table(set_columns(model.selection)))
            yield closed(title, Markup("<p>{}</p>\n").format(removal.caption(model.selection)) + table)
        if model.experts:
            title = removal.experts_title(name)
            yield closed(title, scroll(title, html_table(expert_columns(model.experts))))


def _facts(diagnoses: Diagnoses) -> Iterator[Markup]:
    for name, model in zip(naming.models(diagnoses.models), diagnoses.models, strict=True):
        yield closed_pairs(pages.model_and_data(name), facts.diagnosis(model))
    yield closed_pairs(pages.SETTINGS, flat(diagnoses.settings))
    yield closed_pairs(pages.PROVENANCE, facts.provenance(diagnoses.provenance))
