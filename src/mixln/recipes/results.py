"""Results of recipes as frozen records; `reproduction.json` is a :class:`Reproduction`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixln.compare.results import Interval
from mixln.diagnostics.results import Angular
from mixln.metrics import Scale as Scaling
from mixln.recipes import former
from mixln.recipes.records import Place, Scale
from mixln.runs.provenance import Provenance
from mixln.runs.schema import Schema

Points = tuple[tuple[float, float], ...]
"""(x, y) pairs in ascending order of x."""

Verdict = Literal["held", "reversed", "undecided", "at-chance", "single-seed", "failed", "not-measured"]


@dataclass(frozen=True, kw_only=True)
class MeasuredQuantity:
    """A quantity at one place of a table or figure.

    :param published: the number printed in the paper.
    :param value: mean over seeds, on the `scale`; `None` if no seed has a value, for example because all diverged.
    :param low: lower end of the 95% interval; `None` for fewer than two seeds.
    :param high: upper end of the 95% interval.
    :param scale: scale of `value` relative to the printed number: itself, its natural logarithm, or a hundredth of it.
    """

    quantity: str
    run: str
    placement: str
    published: float | None
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    trained: int
    scale: Scaling = "itself"


@dataclass(frozen=True, kw_only=True)
class OrderingResult:
    """An ordering and its verdict.

    :param difference: `ahead` minus `behind`, paired by seed.
    :param verdict: `held` or `reversed` if the 95% interval excludes zero, or, for perplexity and accuracy, if one side trained at all of
        several seeds and the other at none; `undecided` otherwise; `at-chance` if neither side is significantly above chance level;
        `single-seed` if there is only one seed, which gives no estimate of the noise; `failed` if a training ended with an error.
    """

    quantity: str
    ahead: Place
    behind: Place
    published: tuple[float | None, float | None]
    difference: Interval | None
    verdict: Verdict
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """All seeds of a placement at one of several learning rates.

    :param losses: held-out losses, nats per token; `None` for a training that diverged.
    :param trained: number of seeds that neither diverged nor stalled.
    """

    run: str
    placement: str
    learning_rate: float
    losses: tuple[float | None, ...]
    trained: int

    @property
    def counted(self) -> tuple[float, ...]:
        """The losses to average: those of the seeds that trained, or, if there are none, of those that stalled."""
        # Sorted, because a stalled seed has a larger loss than every seed that trained.
        losses = sorted(loss for loss in self.losses if loss is not None)
        return tuple(losses[: self.trained] or losses)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve of one model in the paper's figure.

    :param curve: name of the curve, see :data:`mixln.recipes.curves.CURVES`.
    :param measure: measure of a performance drop, in `unit`.
    """

    curve: str
    run: str
    placement: str
    seed: int
    measure: str = ""
    unit: str = ""
    points: Points


@dataclass(frozen=True, kw_only=True)
class AngularDistanceMap:
    """The angular distance of each block of layers.

    :param angles: means over seeds.
    """

    run: str
    placement: str
    seeds: int
    angles: Angular


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """The settings of a comparison that differ between recipes.

    :param init: initialisation of all placements; `None` if each has its recommended one.
    :param steps: optimizer steps of `batch_size` sequences of `sequence_length` tokens; `None` for images, which have `epochs`.
    :param micro_batch_size: sequences or images per forward pass; `None` for the complete batch.
    """

    run: str
    model: str
    placements: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    init: str | None
    batch_size: int
    micro_batch_size: int | None = None
    steps: int | None = None
    sequence_length: int | None = None
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The result of a recipe; `reproduction.json`.

    :param recipe: its name; title, source and reading are those of :data:`mixln.recipes.RECIPES`.
    :param only: the models to which it was restricted; empty for all.
    :param command: the command line.
    :param trained: its comparisons.
    :param seconds: total time of all trainings including post-training, without evaluations on tasks.
    :param swept: all learning rates of runs with several; `measured` has each placement at its best learning rate.
    :param lines: curves of the paper's figure; empty for a table.
    :param turned: angular distances in the paper's figure; empty for a table.
    :param provenance: the distinct provenances of its comparisons.
    """

    recipe: str
    scale: Scale
    only: tuple[str, ...] = ()
    command: str
    trained: tuple[TrainedRun, ...]
    measured: tuple[MeasuredQuantity, ...]
    orderings: tuple[OrderingResult, ...]
    seconds: float
    swept: tuple[SweepPoint, ...] = ()
    lines: tuple[Line, ...] = ()
    turned: tuple[AngularDistanceMap, ...] = ()
    provenance: tuple[Provenance, ...] = ()

    @property
    def smaller(self) -> bool:
        """Whether the trained models are smaller than the paper's."""
        return self.scale == "cpu" and bool(self.trained)


REPRODUCTION = Schema(
    kind="reproduction", file="reproduction.json", record=Reproduction, upgrades=(former.reproduction,)
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The effect of the authors' deviations on an ordering.

    :param ordering: the ordering with the deviations.
    :param change: difference with the deviations minus difference with the paper's settings, paired by seed.
    """

    ordering: OrderingResult
    change: Interval | None


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """A recipe with some deviations of the authors' code.

    :param name: the deviations, joined by `+`; see :data:`mixln.recipes.deviations.DEVIATIONS`.
    :param trained: the comparisons that were trained for it.
    :param seconds: total time of these trainings.
    """

    name: str
    trained: tuple[TrainedRun, ...]
    measured: tuple[MeasuredQuantity, ...]
    effects: tuple[Effect, ...]
    seconds: float
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeviationStudy:
    """A recipe with the paper's settings and with the deviations of the authors' code; `as-published.json`.

    :param measured: numbers with the paper's settings.
    :param orderings: orderings with the paper's settings.
    :param varied: results with the deviations.
    """

    recipe: str
    scale: Scale
    only: tuple[str, ...] = ()
    command: str
    measured: tuple[MeasuredQuantity, ...]
    orderings: tuple[OrderingResult, ...]
    varied: tuple[VariantResult, ...]


AS_PUBLISHED = Schema(
    kind="as-published", file="as-published.json", record=DeviationStudy, upgrades=(former.as_published,)
)
