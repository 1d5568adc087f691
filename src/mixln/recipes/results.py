"""Outcomes of recipes as frozen records: `reproduction.json` is one :class:`Reproduction`."""

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
"""(place on the horizontal axis, value), ascending."""

Verdict = Literal["held", "reversed", "undecided", "at-chance", "single-seed", "failed", "not-measured"]


@dataclass(frozen=True, kw_only=True)
class MeasuredQuantity:
    """One quantity in one place.

    :param published: what the paper has there, as printed.
    :param value: mean over seeds, on the `scale`; `None` where no seed has it: those that diverged have not.
    :param low: lower end of its 95% interval, `high` the upper one; `None` with fewer than two seeds.
    :param scale: what `value` is of the number as it is printed: itself, its natural logarithm, or a hundredth of it.
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
    """One ordering and what became of it.

    :param difference: what is claimed to be ahead minus what is claimed to be behind, paired by seed.
    :param verdict: `held` or `reversed` where the 95% interval excludes zero, or, of perplexity and accuracy, where one of the two trained
        at all of several seeds and the other at none; `undecided` where neither; `at-chance` where neither side is significantly above
        chance level; `single-seed` where there are no seeds to estimate noise from; `failed` where a training ended with an error.
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
    """All seeds of one placement at one learning rate, of a run with several.

    :param losses: held-out, nats per token; `None` where a training diverged.
    :param trained: how many neither diverged nor stalled.
    """

    run: str
    placement: str
    learning_rate: float
    losses: tuple[float | None, ...]
    trained: int

    @property
    def counted(self) -> tuple[float, ...]:
        """The losses that a mean is taken over: those of seeds that trained; where none did, of those that stalled."""
        known = sorted(
            loss for loss in self.losses if loss is not None
        )  # a stalled seed ends above every one that trained
        return tuple(known[: self.trained] or known)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the paper's figure, of one model.

    :param curve: which, see :data:`mixln.recipes.curves.CURVES`.
    :param measure: of drops, what they are measured by, in this `unit`.
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
    """How far each block of layers turns the stream.

    :param angles: mean over seeds.
    """

    run: str
    placement: str
    seeds: int
    angles: Angular


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """One comparison that was trained, as far as its settings differ between recipes.

    :param init: for all placements; `None` if each has its own.
    :param steps: of `batch_size` sequences of `sequence_length` tokens; of images, `epochs` of `batch_size` images a step.
    :param micro_batch_size: sequences or images of a forward pass; `None` for the whole batch.
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
    """A recipe that was run; `reproduction.json`.

    :param recipe: its name; title, source, reading and factors are those of :data:`mixln.recipes.RECIPES`.
    :param only: the models that it was restricted to; empty for all.
    :param command: what was typed.
    :param trained: its comparisons.
    :param swept: of runs with several learning rates, every one of them; elsewhere each placement is at its best.
    :param lines: of the paper's figure, and so is `turned`; empty of a table.
    :param seconds: of all trainings, added up, those after the pre-training too; evaluations on tasks are none.
    :param provenance: different ones of its comparisons.
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
        """Whether models were trained that are smaller than the paper's."""
        return self.scale == "cpu" and bool(self.trained)


REPRODUCTION = Schema(kind="reproduction", file="reproduction.json", record=Reproduction, upgrade=former.reproduction)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What the authors' code makes of one ordering.

    :param ordering: what became of it with their code.
    :param change: by how much the difference is another than as the paper says, paired by seed.
    """

    ordering: OrderingResult
    change: Interval | None


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """A recipe with some of what the authors' code does otherwise.

    :param name: the deviations, joined by `+`; :data:`mixln.recipes.deviations.DEVIATIONS` explains them.
    :param trained: the comparisons that were made for it; `seconds` are of all of them, added up.
    """

    name: str
    trained: tuple[TrainedRun, ...]
    measured: tuple[MeasuredQuantity, ...]
    effects: tuple[Effect, ...]
    seconds: float
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeviationStudy:
    """A recipe as the paper says, and as the authors' code does; `as-published.json`.

    :param measured: as the paper says, and so are the `orderings`.
    """

    recipe: str
    scale: Scale
    only: tuple[str, ...] = ()
    command: str
    measured: tuple[MeasuredQuantity, ...]
    orderings: tuple[OrderingResult, ...]
    varied: tuple[VariantResult, ...]


AS_PUBLISHED = Schema(kind="as-published", file="as-published.json", record=DeviationStudy, upgrade=former.as_published)
