"""Curves of the papers' figures over layers or steps, and the angular distances of all blocks of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Literal

from mixln.diagnostics.results import Angular
from mixln.recipes.quantities import Evidence, drops, gradients
from mixln.recipes.records import Recipe
from mixln.recipes.results import AngularDistanceMap, Line, Points

if TYPE_CHECKING:
    from mixln.recipes.outcome import EvidenceByPlace


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve of a figure.

    :param name: its name in recipes and in the file name of the figure.
    :param along: the horizontal axis.
    :param of: the (x, y) points of one model; `None` if it has none. Values that are not finite are omitted.
    :param measure: name and unit of the vertical axis, if they depend on the model.
    :param logarithmic: whether the vertical axis is logarithmic; means over seeds are then geometric.
    :param of_trained: whether models that diverged or stalled are omitted.
    """

    name: str
    along: Literal["layer", "step"]
    of: Callable[[Evidence], Points | None]
    measure: Callable[[Evidence], tuple[str, str]] = lambda evidence: ("", "")
    logarithmic: bool = False
    of_trained: bool = False


def _by_layer(values: Sequence[float] | None) -> Points | None:
    return None if values is None else tuple((float(layer), value) for layer, value in enumerate(values, start=1))


def _course(evidence: Evidence) -> Points | None:
    if evidence.result is None:
        return None
    return tuple((float(step), math.exp(loss)) for step, loss in evidence.result.eval_curve)


def _drop_measure(evidence: Evidence) -> tuple[str, str]:
    drops = evidence.diagnosis.drops if evidence.diagnosis else None
    return (drops.measure, drops.unit) if drops else ("", "")


CURVES: dict[str, Curve] = {
    curve.name: curve
    for curve in (
        Curve(
            name="drops",
            along="layer",
            of=lambda evidence: _by_layer(drops(evidence)),
            measure=_drop_measure,
            of_trained=True,
        ),
        Curve(name="gradients", along="layer", of=lambda evidence: _by_layer(gradients(evidence)), logarithmic=True),
        Curve(name="course", along="step", of=_course, logarithmic=True),
    )
}


def lines(recipe: Recipe, known: EvidenceByPlace) -> Iterator[Line]:
    """The recipe's curves for every model."""
    for name in recipe.curves:
        curve = CURVES[name]
        for (run, placement), seeds in known.items():
            for seed, evidence in seeds.items():
                points = tuple(point for point in curve.of(evidence) or () if math.isfinite(point[1]))
                if points and (evidence.trained or not curve.of_trained):
                    measure, unit = curve.measure(evidence)
                    yield Line(
                        curve=name,
                        run=run,
                        placement=placement,
                        seed=seed,
                        measure=measure,
                        unit=unit,
                        points=points,
                    )


def angular_distance_maps(recipe: Recipe, known: EvidenceByPlace) -> Iterator[AngularDistanceMap]:
    """The angular distances of all blocks, averaged over the seeds that trained, if the recipe's figure shows them."""
    for (run, placement), seeds in known.items() if recipe.angles else ():
        angles = [evidence.diagnosis.angular for evidence in seeds.values() if evidence.diagnosis and evidence.trained]
        if angles:
            yield AngularDistanceMap(run=run, placement=placement, seeds=len(angles), angles=_mean(angles))


def _mean(angles: Sequence[Angular]) -> Angular:
    rows = zip(*(seed.distance for seed in angles), strict=True)
    return replace(
        angles[0],
        distance=tuple(tuple(map(mean, zip(*row, strict=True))) for row in rows),
        influence=tuple(map(mean, zip(*(seed.influence for seed in angles), strict=True))),
    )
