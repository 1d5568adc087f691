"""The figures of a diagnosis: what each layer of one or several models contributes. Charts without data are left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from mixln.compare.results import Summary
from mixln.diagnostics.results import Diagnosis, Gradients, Jacobian
from mixln.report import axes, formats, series
from mixln.report.axes import Axis
from mixln.report.drops import gates, performance_drops, task_drops
from mixln.report.heatmap import angular
from mixln.report.models import Models, models_of
from mixln.report.series import Chart, Panel, Points, Trace
from mixln.runs.profile import Profile

MOST_NORMS = 6
PartOf = Callable[[Profile], tuple[float, ...]]
_BRANCHES = " Where a model's branches are not known, its feed-forward line is that of the whole layer."


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What one panel shows of each model as a line.

    :param points: by layer; empty where it is not known of a model.
    :param axis: makes the vertical axis from the label and the values.
    :param halves: whether points lie between layers: layer l's attention at l, its end at l + ½, the entry at ½.
    """

    title: str
    label: str
    points: Callable[[Diagnosis], Points]
    axis: Callable[[str, Iterable[float]], Axis]
    halves: bool = False


def charts_of(diagnoses: Sequence[Diagnosis], names: Sequence[str] = ()) -> tuple[Chart, ...]:
    """All figures, in the order in which they are shown.

    :param names: the names of a legend that stands on the same page: a model of that name gets its colour and marker.
    """
    models = models_of(diagnoses, names)
    makers = (angular, influence, performance_drops, task_drops, gates, gradients, residual, gains, jacobian)
    made = chain.from_iterable(_each(maker(models)) for maker in makers)
    return tuple(chart for chart in made if chart.panels)


def of_summary(summary: Summary) -> tuple[Chart, ...]:
    """The figures of a comparison's diagnoses, named apart from those of its training; a placement keeps its colour."""
    charts = charts_of(summary.diagnoses, series.labels(summary))
    return tuple(replace(chart, name=f"diagnosis-{chart.name}") for chart in charts)


def influence(models: Models) -> Chart:
    """How much each layer changes the stream, alone: by cosine and by angle."""
    panels = _panels(
        models,
        (
            Quantity(
                title="block influence",
                label="1 − cosine",
                points=lambda diagnosis: by_layer(diagnosis.angular.influence),
                axis=axes.spread,
            ),
            Quantity(
                title="angle between input and output",
                label="fraction of π",
                points=lambda diagnosis: by_layer([row[0] for row in diagnosis.angular.distance]),
                axis=axes.spread,
            ),
        ),
    )
    return Chart(
        name="influence",
        title="How much each layer changes the stream",
        caption=(
            "Block influence is 1 − the cosine between each layer's input and output, mean over tokens (ShortGPT, "
            "arXiv:2403.03853); the angle between the two is the lowest row of the triangles above. Near zero, the layer does "
            "next to nothing." + axes.notes([(panel.title, panel.y) for panel in panels])
        ),
        description=_described("block influence and of the angle between each layer's input and output"),
        keys=models.names,
        panels=panels,
        across=len(panels),
    )


def gradients(models: Models) -> Chart:
    """The gradient norm of each layer, of the models as they are and with weights drawn anew."""
    states: tuple[tuple[str, Callable[[Diagnosis], Gradients | None]], ...] = (
        ("as it is", lambda diagnosis: diagnosis.gradients),
        ("weights drawn anew", lambda diagnosis: diagnosis.initial),
    )
    shown = [(state, of) for state, of in states if models.where(of)]
    norms = [gradients.norm for _, of in states for model in models if (gradients := of(model.diagnosis))]
    quantities = [
        Quantity(
            title=f"{name}, {state}",
            label="gradient norm (L2)",
            points=partial(_norms, of, part),
            axis=axes.logarithmic,
        )
        for part, name in _branches(norms)
        for state, of in shown
    ]
    panels = _panels(models, quantities, shared=True)
    return Chart(
        name="gradients",
        title="Gradient norm by layer",
        caption=(
            "L2 norm of the gradient of the weights in each layer, from one backward pass, on a logarithmic axis. Where a line "
            "is level, all layers learn alike; where it dips, those layers hardly learn."
            + (" Drawn anew: the same architecture before any training." if len(shown) > 1 else "")
            + _unknown(norms)
        ),
        description=_described("gradient norm"),
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
            Quantity(
                title="variance of the stream",
                label="variance",
                points=lambda diagnosis: by_depth(diagnosis.stream.entry_variance, diagnosis.stream.variance),
                axis=axes.logarithmic,
                halves=True,
            ),
            Quantity(
                title="norm of the stream",
                label="L2 norm",
                points=lambda diagnosis: by_depth(diagnosis.stream.entry_norm, diagnosis.stream.norm),
                axis=axes.logarithmic,
                halves=True,
            ),
            *(
                Quantity(
                    title=f"share of the {name} in its sum",
                    label="share of the branch",
                    points=lambda diagnosis, part=part: by_layer(part(diagnosis.stream.share)),
                    axis=lambda label, _: Axis(label=label, low=0.0, high=1.0),
                )
                for part, name in _branches(shares)
            ),
        ),
    )
    return Chart(
        name="residual",
        title="Residual stream by depth",
        caption=(
            "Variance over features and L2 norm (means over tokens, no unit) of the stream as it enters the first layer and "
            "leaves each layer's attention (at the layer's number) and feed-forward (half a step on), on logarithmic axes; "
            "where a model's branches are not known, only as it leaves each layer. Share: ‖branch‖ / (‖skip‖ + ‖branch‖), 0 "
            "where the branch adds nothing and 1 where it replaces the stream."
        ),
        description=_described("variance and norm of the residual stream, and of the share of each branch"),
        keys=models.names,
        panels=panels,
        across=2,
    )


def gains(models: Models) -> Chart:
    """The mean |gain| of each norm within the layer."""
    names = tuple(dict.fromkeys(name for model in models for name in model.diagnosis.stream.gains))
    panels = _panels(
        models,
        [
            Quantity(
                title=f"gain of {formats.plain(name)}",
                label="mean |gain|",
                points=lambda diagnosis, name=name: by_layer(diagnosis.stream.gains.get(name, ())),
                axis=axes.spread,
            )
            for name in names[:MOST_NORMS]
        ],
    )
    left_out = f" {len(names) - MOST_NORMS} more norms are not shown." if len(names) > MOST_NORMS else ""
    return Chart(
        name="gains",
        title="Gains of the norms",
        caption=(
            "Mean absolute gain (the norm's learnt weight; 1 where training has not moved it) of each norm within the layer, by "
            f"layer.{left_out}{axes.notes([(panel.title, panel.y) for panel in panels])}"
        ),
        description=_described("mean absolute gain of each norm"),
        keys=models.names,
        panels=panels,
        across=min(2, len(panels)),
    )


def jacobian(models: Models) -> Chart:
    """How far each layer is from an identity map."""
    kinds: tuple[tuple[str, str, Callable[[Jacobian], tuple[float, ...]]], ...] = (
        ("largest singular value of J", "σ₁(J)", lambda jacobian: jacobian.largest),
        ("distance from the identity", "σ₁(J − I)", lambda jacobian: jacobian.distance),
        ("typical stretch of J − I", "‖J − I‖ / √D (Frobenius)", lambda jacobian: jacobian.typical),
    )
    panels = _panels(
        models,
        [
            Quantity(
                title=title,
                label=label,
                points=lambda diagnosis, of=of: by_layer(of(diagnosis.jacobian) if diagnosis.jacobian else ()),
                axis=axes.spread,
            )
            for title, label, of in kinds
        ],
    )
    return Chart(
        name="jacobian",
        title="Jacobian of each layer",
        caption=(
            "J is the derivative of a layer's output with respect to its input at the same token, mean over sampled tokens. Its "
            "largest singular value is the most that the layer stretches a small change; J\u00a0−\u00a0I is 0 for a layer that hands its "
            "input on as it is, and its typical stretch is that of a random direction."
            + axes.notes([(panel.title, panel.y) for panel in panels])
        ),
        description=_described("largest singular value of the Jacobian, and of its distance from the identity"),
        keys=models.names,
        panels=panels,
        across=2,
    )


def by_layer(values: Sequence[float | None]) -> Points:
    """One point a layer; NaN where there is no value."""
    return tuple((float(layer), math.nan if y is None else y) for layer, y in enumerate(values, start=1))


def by_depth(entry: float, profile: Profile) -> Points:
    """The entry at ½, the attention of layer l at l where it is known, and the end of layer l at l + ½."""
    ends = [(x + 0.5, y) for x, y in by_layer(profile.feed_forward)]
    return tuple(sorted([(0.5, entry), *by_layer(profile.attention), *ends]))


def _each(made: Chart | Iterator[Chart]) -> Iterable[Chart]:
    return (made,) if isinstance(made, Chart) else made


def _norms(of: Callable[[Diagnosis], Gradients | None], part: PartOf, diagnosis: Diagnosis) -> Points:
    found = of(diagnosis)
    return by_layer(part(found.norm)) if found else ()


def _branches(profiles: Sequence[Profile]) -> tuple[tuple[PartOf, str], ...]:
    """The parts of a profile that are known of some model, with the names that they have in titles."""
    whole = not any(profile.attention for profile in profiles)
    second: tuple[PartOf, str] = (lambda profile: profile.feed_forward, "whole layer" if whole else "feed-forward")
    return (second,) if whole else ((lambda profile: profile.attention, "attention"), second)


def _unknown(profiles: Sequence[Profile]) -> str:
    known = {bool(profile.attention) for profile in profiles if profile.feed_forward}
    return _BRANCHES if len(known) > 1 else ""


def _described(quantity: str) -> str:
    return f"Line charts of the {quantity} against the layer. The numbers are in the table of layers."


def _panels(models: Models, quantities: Iterable[Quantity], *, shared: bool = False) -> tuple[Panel, ...]:
    """A panel for each quantity that is known of some model.

    :param shared: whether all have the same vertical axis.
    """
    drawn = [(quantity, _lines(models, quantity)) for quantity in quantities]
    drawn = [(quantity, traces) for quantity, traces in drawn if traces]
    everything = [y for _, traces in drawn for trace in traces for y in trace.y]
    panels = []
    for quantity, traces in drawn:
        values = everything if shared else [y for trace in traces for y in trace.y]
        x, y = axes.layers(models.layers, halves=quantity.halves), quantity.axis(quantity.label, values)
        x = replace(x, low=0.3) if quantity.halves else x
        panels.append(Panel(title=quantity.title, x=x, y=y, traces=tuple(_fit(trace, y) for trace in traces)))
    return tuple(panels)


def _lines(models: Models, quantity: Quantity) -> tuple[Trace, ...]:
    found = ((model, quantity.points(model.diagnosis)) for model in models)
    return tuple(
        Trace(
            key=model.key,
            role="mean",
            label=model.name,
            points=points,
            texts=tuple(f"{_where(x)}: {formats.number(y, 4)}" for x, y in points) if quantity.halves else (),
        )
        for model, points in found
        if any(math.isfinite(y) for _, y in points)
    )


def _fit(trace: Trace, y: Axis) -> Trace:
    """Gaps where a logarithmic axis has no place for a value."""
    return replace(trace, points=tuple((x, v if v > 0 or not y.log else math.nan) for x, v in trace.points))


def _where(depth: float) -> str:
    layer = math.floor(depth)
    if depth == layer:
        return f"after layer {layer}'s attention"
    return f"after layer {layer}" if layer else "before layer 1"
