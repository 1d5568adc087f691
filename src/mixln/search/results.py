"""Results of searches as frozen records; `stress.json` is a :class:`Stress`, `tune.json` a :class:`Search`."""

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
"""How a ramp ended. `none`: still stable at the last learning rate; `worsens`: the loss rose again; `stalls`: the loss is not below the
unigram baseline; `diverges`: the loss is not finite or above its initial value."""


@dataclass(frozen=True, kw_only=True)
class RampOutcome:
    """The stability limit in one ramp, see :func:`mixln.search.stability_limit.ramp_outcome`.

    :param rate: highest stable learning rate; `None` if there is none. A lower bound if `failure` is `none`.
    :param failure: how the training failed above `rate`.
    :param spikes: number of loss spikes below `rate` from which the training recovered.
    :param first_spike: learning rate of the first spike.
    :param least: lowest smoothed training loss, nats per token.
    :param best_rate: learning rate at which `least` was reached.
    """

    rate: float | None
    failure: Failure
    spikes: int
    first_spike: float | None
    least: float
    best_rate: float


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A ramp of the learning rate.

    :param breaking: its stability limit; `None` if the training ended with an error.
    :param curve: (learning rate, training loss in nats per token); the loss is `None` if it is not finite.
    :param error: the error that ended the training; empty if there was none.
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
        """The highest stable learning rate; `None` if there is none."""
        return self.breaking.rate if self.breaking else None


@dataclass(frozen=True, kw_only=True)
class LearningRateLimit:
    """All ramps of a placement at one depth with one initialisation.

    :param rate: geometric mean over seeds of the highest stable learning rate; `None` if a seed has none.
    :param low: lower end of the 95% interval (Student's t of the logarithms); `None` for fewer than two seeds.
    :param high: upper end of the 95% interval.
    :param trained: number of seeds with a stable learning rate, whose loss came below the unigram baseline.
    :param censored: number of seeds that were stable to the end of the ramp, so that `rate` is a lower bound.
    :param failures: how the ramps ended, ordered by seed, without those that ended with an error.
    :param spiked: number of seeds with loss spikes.
    :param failed: number of ramps that ended with an error.
    :param ratio: ln(rate / rate of the baseline at the same depth), paired by seed; `None` for the baseline itself.
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
    """The result of a stress test; `stress.json`.

    :param settings: name → value.
    :param rates: first and last learning rate.
    :param floor: loss of the unigram baseline, nats per token.
    :param text: the training text.
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


STRESS = Schema(kind="stress", file="stress.json", record=Stress, upgrades=(former.stress,), computed=("findings",))


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy trial of the search.

    :param post_layers: number of Post-LN layers, which are the first ones.
    :param loss: last held-out loss, nats per token; `None` if it diverged.
    :param steps: number of completed optimizer steps.
    """

    placement: str
    post_layers: int
    learning_rate: float
    loss: float | None
    steps: int
    ended: Literal["finished", "pruned", "stalled", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class RateResult:
    """The full trainings of a candidate at one learning rate.

    :param seeds: the seeds that were trained, including the one for tuning the learning rate.
    :param losses: held-out loss of each seed, nats per token; `None` for a training that diverged or stalled.
    """

    learning_rate: float
    seeds: tuple[int, ...]
    losses: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Termination:
    """Status of a training and its reason; the reason is empty for `finished`."""

    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A candidate at the full length, at its best learning rate.

    :param seeds: the seeds that were trained; empty if the candidate fell behind while learning rates were tuned.
    :param losses: held-out loss of each seed, nats per token; `None` for a training that diverged or stalled.
    :param ended: status of each seed.
    :param loss: mean loss; `None` unless all seeds trained.
    :param low: lower end of the 95% interval of the mean (Student's t).
    :param high: upper end of the 95% interval.
    :param difference: loss minus that of the chosen candidate, paired by seed; `None` for the chosen candidate itself.
    :param tried: every learning rate that was tried, ascending.
    :param edge: whether the chosen learning rate is the highest or lowest that was tried, so that one beyond it may be better.
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
    """The result of a search; `tune.json`.

    :param limits: (number of Post-LN layers, stability limit from the ramps).
    :param unknown: numbers of Post-LN layers whose ramp never came below the unigram baseline; `limits` then has the learning rate with
        the lowest loss.
    :param chosen: the finalist with the lowest loss among those that trained at all seeds; `None` if there is none.
    :param cost: optimizer steps of the complete search, in units of a full training.
    :param sweep: number of full trainings of an exhaustive sweep: all shares of Table 5 of the Mix-LN paper at three learning rates, with
        the same seeds.
    :param text: the training text.
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


SEARCH = Schema(kind="tune", file="tune.json", record=Search, upgrades=(former.search,), computed=("findings",))
