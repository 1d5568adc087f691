"""What became of a recipe, as frozen records: `reproduction.json` is one :class:`Reproduction`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mixln.compare.results import Interval
from mixln.diagnostics.results import Angular
from mixln.recipes.quantities import Scaling
from mixln.recipes.records import Place
from mixln.records import OPTIONAL
from mixln.runs.schema import Schema

Points = tuple[tuple[float, float], ...]
"""(place on the horizontal axis, value), ascending."""

Verdict = Literal["held", "did not hold", "undecided", "guesses", "one of a kind", "failed", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Measured:
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
    scale: Scaling = field(default="itself", metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """One claim and what became of it.

    :param difference: what is claimed to be ahead minus what is claimed to be behind, paired by seed.
    :param verdict: `held` or `did not hold` where the 95% interval excludes zero, or, of perplexity and accuracy, where one of the two
        trained at all of several seeds and the other at none; `undecided` where neither; `guesses` where neither side is above guessing by
        more than it varies; `one of a kind` where there is no seed to tell noise from; `failed` where a training ended with an error.
    """

    quantity: str
    ahead: Place
    behind: Place
    published: tuple[float | None, float | None]
    difference: Interval | None
    verdict: Verdict
    ours: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Swept:
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
    :param label: of the vertical axis, with its unit.
    """

    curve: str
    run: str
    placement: str
    seed: int
    label: str
    points: Points


@dataclass(frozen=True, kw_only=True)
class Turned:
    """How far each block of layers turns the stream.

    :param angles: mean over seeds.
    """

    run: str
    placement: str
    seeds: int
    angles: Angular


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A recipe that was run; `reproduction.json`.

    :param command: what was typed.
    :param swept: of runs with several learning rates, every one of them; elsewhere each placement is at its best.
    :param lines: what the paper's figure draws, and so is `turned`; empty of a table.
    :param seconds: of all trainings, added up, those after the pre-training too; evaluations on tasks are none.
    """

    recipe: str
    title: str
    source: str
    reading: str
    scale: str
    scaled: str
    command: str
    settings: tuple[str, ...]
    measured: tuple[Measured, ...]
    orderings: tuple[Ordering, ...]
    seconds: float
    swept: tuple[Swept, ...] = field(default=(), metadata=OPTIONAL)
    lines: tuple[Line, ...] = field(default=(), metadata=OPTIONAL)
    turned: tuple[Turned, ...] = field(default=(), metadata=OPTIONAL)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def smaller(self) -> bool:
        """Whether models were trained that are smaller than the paper's."""
        return self.scale == "cpu" and bool(self.settings)


REPRODUCTION = Schema(kind="reproduction", file="reproduction.json", record=Reproduction)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What the authors' code makes of one ordering.

    :param ordering: what became of it with their code.
    :param change: by how much the difference is another than as the paper says, paired by seed.
    """

    ordering: Ordering
    change: Interval | None


@dataclass(frozen=True, kw_only=True)
class Varied:
    """A recipe with some of what the authors' code does otherwise.

    :param name: the deviations, joined by `+`.
    :param what: what is done otherwise.
    :param settings: of the trainings that were made for it; `seconds` are of all of them, added up.
    """

    name: str
    what: str
    settings: tuple[str, ...]
    measured: tuple[Measured, ...]
    effects: tuple[Effect, ...]
    seconds: float
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class AsPublished:
    """A recipe as the paper says, and as the authors' code does; `as-published.json`.

    :param measured: as the paper says, and so are the `orderings`.
    """

    recipe: str
    title: str
    source: str
    scale: str
    scaled: str
    command: str
    measured: tuple[Measured, ...]
    orderings: tuple[Ordering, ...]
    varied: tuple[Varied, ...]


AS_PUBLISHED = Schema(kind="as-published", file="as-published.json", record=AsPublished)
