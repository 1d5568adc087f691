"""The figures of a diagnosis: the contribution of each layer of one or several models. Charts without data are omitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from mixln.compare.results import Summary
from mixln.diagnostics.results import Diagnosis, Gradients, Jacobian
from mixln.report import names as naming
from mixln.report.figures import axes
from mixln.report.figures.angular import angular
from mixln.report.figures.axes import Axis
from mixln.report.figures.drops import gates, performance_drops, sublayer_drops, task_drops
from mixln.report.figures.experts import expert_use
from mixln.report.figures.models import Models, models_of
from mixln.report.figures.series import Chart, Panel, Points, Trace
from mixln.report.wording import charts as words
from mixln.report.wording import diagnosis_charts as texts
from mixln.runs.profile import Profile

MOST_NORMS = 6
"""Maximum number of norms with a panel each; the caption states how many are omitted."""
PartOf = Callable[[Profile], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class LayerPanel:
    """One panel with a line for each model, against its layers.

    :param label: label of the vertical axis.
    :param points: makes the points of a model, by layer; empty if it has none.
    :param axis: makes the vertical axis from the label and the values.
    :param halves: whether points are between layers: the attention of layer l at l, its output at l + ½, the input of layer 1 at ½.
    """

    title: str
    label: str
    points: Callable[[Diagnosis], Points]
    axis: Callable[[str, Iterable[float]], Axis] = axes.spread
    halves: bool = False


def charts_of(diagnoses: Sequence[Diagnosis], names: Sequence[str] = ()) -> tuple[Chart, ...]:
    """All figures, in display order.

    :param names: names in another legend of the page: a model with such a name gets the same style.
    """
    models = models_of(diagnoses, names)
    makers = (
        angular,
        influence,
        performance_drops,
        sublayer_drops,
        task_drops,
        gates,
        gradients,
        residual,
        gains,
        jacobian,
        expert_use,
    )
    made = chain.from_iterable(_each(maker(models)) for maker in makers)
    return tuple(chart for chart in made if chart.panels)


def of_summary(summary: Summary) -> tuple[Chart, ...]:
    """The figures of a comparison's diagnoses, with unique names on the page and the styles of the placements."""
    charts = charts_of(summary.diagnoses, naming.placements(summary))
    return tuple(replace(chart, name=f"diagnosis-{chart.name}") for chart in charts)


def influence(models: Models) -> Chart:
    """The change of the stream by layer: cosine and angle."""
    panels = _panels(
        models,
        (
            LayerPanel(
                title=texts.INFLUENCE,
                label=texts.COSINE,
                points=lambda diagnosis: by_layer(diagnosis.angular.influence),
            ),
            LayerPanel(
                title=texts.ANGLE,
                label=texts.FRACTION_OF_PI,
                points=lambda diagnosis: by_layer([row[0] for row in diagnosis.angular.distance]),
            ),
        ),
    )
    return Chart(
        name="influence", text=texts.influence(_bends(panels)), keys=models.names, panels=panels, across=len(panels)
    )


def gradients(models: Models) -> Chart:
    """The gradient norm of each layer, for the models as loaded and re-initialised."""
    states: tuple[tuple[str, Callable[[Diagnosis], Gradients | None]], ...] = (
        (texts.AS_LOADED, lambda diagnosis: diagnosis.gradients),
        (texts.INITIAL, lambda diagnosis: diagnosis.initial),
    )
    shown = [(state, of) for state, of in states if models.where(of)]
    norms = [gradients.norm for _, of in states for model in models if (gradients := of(model.diagnosis))]
    lines = [
        LayerPanel(
            title=texts.branch_panel(name, state),
            label=words.GRADIENT_NORM,
            points=partial(_norms, of, part),
            axis=axes.logarithmic,
        )
        for part, name in _branches(norms)
        for state, of in shown
    ]
    panels = _panels(models, lines, shared=True)
    known = {bool(norm.attention) for norm in norms if norm.feed_forward}
    return Chart(
        name="gradients",
        text=texts.gradients(initial=len(shown) > 1, some_unknown=len(known) > 1),
        keys=models.names,
        panels=panels,
        across=min(2, len(panels)),
    )


def residual(models: Models) -> Chart:
    """Variance and norm of the residual stream by depth, and the share of each branch in its sum."""
    shares = [model.diagnosis.stream.share for model in models]
    panels = _panels(
        models,
        (
            LayerPanel(
                title=texts.STREAM_VARIANCE,
                label=texts.VARIANCE,
                points=lambda diagnosis: by_depth(diagnosis.stream.entry_variance, diagnosis.stream.variance),
                axis=axes.logarithmic,
                halves=True,
            ),
            LayerPanel(
                title=texts.STREAM_NORM,
                label=texts.NORM,
                points=lambda diagnosis: by_depth(diagnosis.stream.entry_norm, diagnosis.stream.norm),
                axis=axes.logarithmic,
                halves=True,
            ),
            *(
                LayerPanel(
                    title=texts.share_panel(name),
                    label=texts.SHARE,
                    points=lambda diagnosis, part=part: by_layer(part(diagnosis.stream.share)),
                    axis=lambda label, _: Axis(label=label, low=0.0, high=1.0),
                )
                for part, name in _branches(shares)
            ),
        ),
    )
    return Chart(name="residual", text=texts.residual(), keys=models.names, panels=panels, across=2)


def gains(models: Models) -> Chart:
    """The mean |gain| of each norm within the layer."""
    norms = tuple(dict.fromkeys(name for model in models for name in model.diagnosis.stream.gains))
    panels = _panels(
        models,
        [
            LayerPanel(
                title=texts.gain_panel(name),
                label=texts.GAIN,
                points=lambda diagnosis, name=name: by_layer(diagnosis.stream.gains.get(name, ())),
            )
            for name in norms[:MOST_NORMS]
        ],
    )
    return Chart(
        name="gains",
        text=texts.gains(len(norms) - MOST_NORMS, _bends(panels)),
        keys=models.names,
        panels=panels,
        across=min(2, len(panels)),
    )


def jacobian(models: Models) -> Chart:
    """The distance of each layer from an identity map."""
    kinds: tuple[tuple[tuple[str, str], Callable[[Jacobian], tuple[float, ...]]], ...] = (
        (texts.LARGEST, lambda jacobian: jacobian.largest),
        (texts.DISTANCE, lambda jacobian: jacobian.distance),
        (texts.TYPICAL, lambda jacobian: jacobian.typical),
    )
    panels = _panels(
        models,
        [
            LayerPanel(
                title=title,
                label=label,
                points=lambda diagnosis, of=of: by_layer(of(diagnosis.jacobian) if diagnosis.jacobian else ()),
            )
            for (title, label), of in kinds
        ],
    )
    return Chart(name="jacobian", text=texts.jacobian(_bends(panels)), keys=models.names, panels=panels, across=2)


def by_layer(values: Sequence[float | None]) -> Points:
    """One point per layer; NaN for a missing value."""
    return tuple((float(layer), math.nan if y is None else y) for layer, y in enumerate(values, start=1))


def by_depth(entry: float, profile: Profile) -> Points:
    """The input of layer 1 at ½, the attention of layer l at l if it is known, and the output of layer l at l + ½."""
    ends = [(x + 0.5, y) for x, y in by_layer(profile.feed_forward)]
    return tuple(sorted([(0.5, entry), *by_layer(profile.attention), *ends]))


def _each(made: Chart | Iterator[Chart]) -> Iterable[Chart]:
    return (made,) if isinstance(made, Chart) else made


def _bends(panels: Sequence[Panel]) -> list[tuple[str, float]]:
    return [(panel.title, panel.y.bend) for panel in panels]


def _norms(of: Callable[[Diagnosis], Gradients | None], part: PartOf, diagnosis: Diagnosis) -> Points:
    gradients = of(diagnosis)
    return by_layer(part(gradients.norm)) if gradients else ()


def _branches(profiles: Sequence[Profile]) -> tuple[tuple[PartOf, str], ...]:
    """The parts of a profile that some model has, with their names in titles."""
    whole = not any(profile.attention for profile in profiles)
    name = texts.WHOLE_LAYER if whole else words.FEED_FORWARD
    second: tuple[PartOf, str] = (lambda profile: profile.feed_forward, name)
    return (second,) if whole else ((lambda profile: profile.attention, words.ATTENTION), second)


def _panels(models: Models, lines: Iterable[LayerPanel], *, shared: bool = False) -> tuple[Panel, ...]:
    """The panels for which some model has points.

    :param shared: whether all panels have the same vertical axis.
    """
    drawn = [(line, traces) for line in lines if (traces := _lines(models, line))]
    everything = [y for _, traces in drawn for trace in traces for y in trace.y]
    panels = []
    for line, traces in drawn:
        values = everything if shared else [y for trace in traces for y in trace.y]
        x, y = axes.layers(models.layers, halves=line.halves), line.axis(line.label, values)
        x = replace(x, low=0.3) if line.halves else x
        panels.append(Panel(title=line.title, x=x, y=y, traces=tuple(_fit(trace, y) for trace in traces)))
    return tuple(panels)


def _lines(models: Models, line: LayerPanel) -> tuple[Trace, ...]:
    lines = ((model, line.points(model.diagnosis)) for model in models)
    return tuple(
        Trace(
            key=model.key,
            role="mean",
            label=model.name,
            points=points,
            texts=tuple(texts.depth(x, y) for x, y in points) if line.halves else (),
        )
        for model, points in lines
        if any(math.isfinite(y) for _, y in points)
    )


def _fit(trace: Trace, y: Axis) -> Trace:
    """Replaces values that a logarithmic axis cannot show by gaps."""
    return replace(trace, points=tuple((x, v if v > 0 or not y.log else math.nan) for x, v in trace.points))
