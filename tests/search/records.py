"""Results of stress tests and searches written by hand."""

from __future__ import annotations

from mixln.compare.results import Interval
from mixln.search.results import Finalist, LearningRateLimit, Proxy, Ramp, RateResult, Search, Stress, Termination
from mixln.search.settings import placement_with


def limit(**more) -> LearningRateLimit:
    """A limit of Pre-LN in 2 layers that is not known."""
    values = {"rate": None, "low": None, "high": None, "trained": 0, "failures": ("stalls", "stalls"), **more}
    values = {
        "placement": "pre",
        "title": "Pre-LN",
        "layers": 2,
        "init": "normal",
        "censored": 0,
        "spiked": 0,
        **values,
    }
    return LearningRateLimit(**values)


def stressed(*limits: LearningRateLimit, ramps: tuple[Ramp, ...] = (), **more) -> Stress:
    """A stress test whose baseline is Pre-LN."""
    values = {"rates": (1e-3, 1.0), "steps": 20, "floor": 5.8, **more}
    return Stress(settings={}, baseline="pre", limits=limits, ramps=ramps, **values)


def proxy(count: int, rate: float, loss: float | None, ended: str = "finished") -> Proxy:
    """A proxy trial of `count` Post-LN layers of 4."""
    return Proxy(
        placement=placement_with(count, 4), post_layers=count, learning_rate=rate, loss=loss, steps=10, ended=ended
    )


def finalist(count: int, rate: float, losses: tuple[float | None, ...], difference: Interval | None = None) -> Finalist:
    """A candidate of `count` Post-LN layers of 4; a loss that is missing diverged."""
    seeds, whole = tuple(range(len(losses))), bool(losses) and None not in losses
    mean = sum(losses) / len(losses) if whole else None
    return Finalist(
        placement=placement_with(count, 4),
        title="",
        post_layers=count,
        learning_rate=rate,
        seeds=seeds,
        losses=losses,
        ended=tuple(
            Termination(status="finished") if loss else Termination(status="diverged", reason="the loss is not finite")
            for loss in losses
        ),
        loss=mean,
        low=None if mean is None or len(losses) < 2 else mean - 0.1,
        high=None if mean is None or len(losses) < 2 else mean + 0.1,
        difference=difference,
        tried=(RateResult(learning_rate=rate, seeds=seeds, losses=losses),),
    )


def searched(*finalists: Finalist, chosen: bool = True, unknown: tuple[int, ...] = ()) -> Search:
    """A search in 4 layers that chose the first candidate."""
    return Search(
        settings={},
        layers=4,
        steps=40,
        proxy_steps=10,
        limits=((0, 0.1), (4, 0.01)),
        proxies=(proxy(1, 1e-3, 5.0), proxy(2, 1e-3, 6.0, "pruned"), proxy(0, 1e-3, 5.5)),
        finalists=finalists,
        chosen=finalists[0] if chosen else None,
        cost=8.25,
        sweep=42,
        unknown=unknown,
    )
