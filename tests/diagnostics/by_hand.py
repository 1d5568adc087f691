"""Diagnoses written by hand, of which only some numbers matter."""

from __future__ import annotations

from mixln.diagnostics.results import Angular, Diagnosis, Drop, Drops, Gradients, Jacobian, ResidualStream
from mixln.runs.profile import Profile

NOTHING = Profile(attention=(), feed_forward=())
FALLING = (2.0, 0.5, 0.4, 0.3, 0.2, 0.1)
UNORDERED = (0.4, 2.0, 0.1, 0.3, 0.5, 0.2)


def drop(first: int, change: float, half: float | None = 0.001, *, last: int | None = None) -> Drop:
    """A drop whose interval reaches `half` to both sides."""
    low, high = (None, None) if half is None else (change - half, change + half)
    return Drop(first=first, last=last or first, value=3 + change, change=change, low=low, high=high)


def drops(changes, *, blocks=(), half: float | None = 0.001, **more) -> Drops:
    """The drops of single layers, in nats of a loss of 3, and those of blocks."""
    return Drops(
        **{
            "measure": "loss",
            "unit": "nats per token",
            "better": "lower",
            "original": 3.0,
            "tokens": 1000,
            "sequences": 60,
            **more,
        },
        skipped=tuple(drop(layer, change, half) for layer, change in enumerate(changes, start=1)),
        blocks=tuple(blocks),
    )


def accuracies() -> Drops:
    """Drops of an accuracy, which is better the higher it is."""
    changes = (-0.5, -0.4, -0.3, -0.2, -0.1, 0.0)
    return drops(changes, measure="accuracy", unit="share", better="higher", original=0.8)


def gradients(estimates) -> Gradients:
    """Gradients whose gates estimate the drops as these."""
    half = tuple(-value / 2 for value in estimates)
    return Gradients(norm=NOTHING, gate=Profile(attention=half, feed_forward=half), loss=3.0, tokens=10)


def jacobian(typical) -> Jacobian:
    """The distances of the layers from an identity map."""
    return Jacobian(largest=typical, distance=typical, typical=typical, tokens=8)


def diagnosis(found: Drops | None, **more) -> Diagnosis:
    """A model of which these drops were measured; its last layer turns the stream most."""
    depth = len(found.skipped) if found else 6
    distance = tuple(tuple(0.1 + 0.01 * layer for _ in range(depth - layer)) for layer in range(depth))
    return Diagnosis(
        model="m",
        layers=depth,
        angular=Angular(distance=distance, influence=(0.1,) * depth, tokens=10, convention="all"),
        stream=ResidualStream(entry_variance=1, entry_norm=1, variance=NOTHING, norm=NOTHING, share=NOTHING, gains={}),
        drops=found,
        **more,
    )
