"""The results of searches as frozen records: `stress.json` is one :class:`Stress`, `tune.json` one :class:`Search`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mixln.compare.results import Interval
from mixln.data.text import TextInfo
from mixln.records import OPTIONAL
from mixln.runs.outcome import Status
from mixln.runs.provenance import Provenance
from mixln.runs.schema import Schema
from mixln.search import former

Failure = Literal["none", "worsens", "stalls", "diverges"]
"""How a ramp ended: it still trained at its last learning rate; it lost part of what it had learnt; it came to know no more than the
frequency of tokens, or never knew more; its loss overflowed or rose above its start."""


@dataclass(frozen=True, kw_only=True)
class RampOutcome:
    """Where one ramp broke, see :func:`mixln.search.stability_limit.ramp_outcome`.

    :param rate: the highest learning rate that trains; `None` if none did. With `failure` `none` it is at least this.
    :param failure: what happened above it.
    :param spikes: times that the loss rose out of bounds below it and came back; `first_spike` is the learning rate of the first.
    :param least: the least smoothed training loss, nats per token, reached at `best_rate`.
    """

    rate: float | None
    failure: Failure
    spikes: int
    first_spike: float | None
    least: float
    best_rate: float


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """One ramp.

    :param curve: (learning rate, training loss in nats per token); a loss that is not finite is `None`.
    :param error: what went wrong with it, which is no result; empty if nothing did.
    """

    placement: str
    layers: int
    init: str
    seed: int
    breaking: RampOutcome | None
    curve: tuple[tuple[float, float | None], ...]
    error: str = ""

    @property
    def rate(self) -> float | None:
        """The highest learning rate that trains, as far as there is one."""
        return self.breaking.rate if self.breaking else None


@dataclass(frozen=True, kw_only=True)
class LearningRateLimit:
    """All ramps of one placement at one depth with one init.

    :param rate: geometric mean over seeds of the highest learning rate that trains; `None` if one of them never trained.
    :param low: lower end of its 95% interval (Student's t of the logarithms); `None` with fewer than two seeds.
    :param trained: seeds that trained at some learning rate: whose loss came below the unigram baseline's while it was sound.
    :param censored: seeds that trained up to the end of the ramp, so that `rate` is too low.
    :param failures: how each ramp ended, in the order of the seeds, but for the `failed` ones, which ended with an error.
    :param ratio: of the baseline's rate with the same depth: natural logarithm, paired by seed; `None` for the baseline itself.
    """

    placement: str
    title: str
    layers: int
    init: str
    rate: float | None
    low: float | None
    high: float | None
    trained: int
    censored: int
    failures: tuple[Failure, ...]
    spiked: int
    failed: int = field(default=0, metadata=OPTIONAL)
    ratio: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Stress:
    """All ramps.

    :param settings: name → value.
    :param rates: first and last learning rate.
    :param floor: loss of the unigram baseline, nats per token.
    :param text: that was trained on.
    """

    settings: dict[str, object]
    baseline: str
    rates: tuple[float, float]
    steps: int
    floor: float
    limits: tuple[LearningRateLimit, ...]
    ramps: tuple[Ramp, ...]
    text: TextInfo | None = None
    provenance: Provenance = field(default_factory=Provenance)


STRESS = Schema(kind="stress", file="stress.json", record=Stress, upgrade=former.stress, computed=("findings",))


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One short training of the search.

    :param post_layers: how many of the first layers are Post-LN.
    :param loss: its last held-out loss, nats per token; `None` if it diverged.
    :param steps: optimizer steps that it came to.
    """

    placement: str
    post_layers: int
    learning_rate: float
    loss: float | None
    steps: int
    ended: Literal["finished", "pruned", "stalled", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class RateResult:
    """One learning rate of a candidate at the full length.

    :param seeds: the one that learning rates are tuned with, and those of the results, as far as they were trained.
    :param losses: held-out loss of each of the seeds, nats per token; `None` where a training diverged or stalled.
    """

    learning_rate: float
    seeds: tuple[int, ...]
    losses: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Termination:
    """How one training ended, and why; the reason is empty if it finished."""

    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One candidate at the full length, at the learning rate that is best for it.

    :param seeds: all of them; none of those that fell behind while learning rates were tuned.
    :param losses: held-out loss of each seed, nats per token; `None` where a training diverged or stalled.
    :param ended: how each ended.
    :param loss: their mean, with its 95% interval (Student's t); `None` unless all trained.
    :param difference: of the loss from that of the chosen one, paired by seed; `None` for the chosen one itself.
    :param tried: every learning rate that was tried, ascending.
    :param edge: whether the one that was taken is the last that was tried in its direction, and a further one may be better.
    """

    placement: str
    title: str
    post_layers: int
    learning_rate: float
    seeds: tuple[int, ...]
    losses: tuple[float | None, ...]
    ended: tuple[Termination, ...]
    loss: float | None
    low: float | None
    high: float | None
    difference: Interval | None = None
    tried: tuple[RateResult, ...] = field(default=(), metadata=OPTIONAL)
    edge: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A choice with its evidence; `tune.json`.

    :param chosen: the finalist with the least loss of those with all seeds; `None` if none trained at all of them.
    :param limits: what the ramps found, by number of Post-LN layers: the highest learning rate that trains, or, of those that `unknown`
        names, that of the least loss, because the ramp never came below the unigram baseline.
    :param cost: optimizer steps of everything, as a number of full trainings; `sweep` is that of trying every share of Table 5 of the
        Mix-LN paper at three learning rates with the same seeds.
    :param text: that was trained on.
    """

    settings: dict[str, object]
    layers: int
    steps: int
    proxy_steps: int
    limits: tuple[tuple[int, float], ...]
    proxies: tuple[Proxy, ...]
    finalists: tuple[Finalist, ...]
    chosen: Finalist | None
    cost: float
    sweep: int
    unknown: tuple[int, ...] = field(default=(), metadata=OPTIONAL)
    text: TextInfo | None = None
    provenance: Provenance = field(default_factory=Provenance)


SEARCH = Schema(kind="tune", file="tune.json", record=Search, upgrade=former.search, computed=("findings",))
