"""The lines of the papers' figures, by layer or by step, and the angular distance of all blocks of layers."""

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
    """A line of a figure.

    :param name: as a recipe names it, and its figure's file.
    :param along: the horizontal axis.
    :param of: (place on it, number) of one model; `None` if it has none. Numbers that are not finite are left out.
    :param measure: what the number is of, and its unit, where that depends on the model.
    :param logarithmic: whether the vertical axis is; means over seeds are then taken of the logarithms.
    :param of_trained: whether it is drawn only of models that neither diverged nor stalled.
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
    found = evidence.diagnosis.drops if evidence.diagnosis else None
    return (found.measure, found.unit) if found else ("", "")


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
    """The recipe's curves of every model that was found."""
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
    """The angular distance of all blocks, mean over the seeds that trained, where the recipe draws it."""
    for (run, placement), seeds in known.items() if recipe.angles else ():
        found = [evidence.diagnosis.angular for evidence in seeds.values() if evidence.diagnosis and evidence.trained]
        if found:
            yield AngularDistanceMap(run=run, placement=placement, seeds=len(found), angles=_mean(found))


def _mean(found: Sequence[Angular]) -> Angular:
    rows = zip(*(each.distance for each in found), strict=True)
    return replace(
        found[0],
        distance=tuple(tuple(map(mean, zip(*row, strict=True))) for row in rows),
        influence=tuple(map(mean, zip(*(each.influence for each in found), strict=True))),
    )
