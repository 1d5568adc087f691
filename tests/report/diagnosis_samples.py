"""Diagnoses made by hand, for the tests of the report and for looking at it."""

from __future__ import annotations

import dataclasses
import math
import random

from mixln.compare.results import Summary
from mixln.data.samples import TextSample
from mixln.diagnostics.results import (
    Angular,
    Diagnoses,
    Diagnosis,
    Drop,
    Drops,
    Experts,
    Gradients,
    Jacobian,
    Method,
    Omission,
    RemovedPart,
    RemovedSet,
    ResidualStream,
    Selection,
    Side,
    Units,
)
from mixln.runs.profile import Profile
from mixln.runs.provenance import ModelFacts, Provenance
from tests.report import samples
from tests.report.samples import HOSTILE


def drop(layer: int, change: float, original: float = 5.3, last: int | None = None, width: float = 0.2) -> Drop:
    """The interval is `width` of the change on both sides."""
    room = width * abs(change)
    return Drop(
        first=layer, last=last or layer, value=original + change, change=change, low=change - room, high=change + room
    )


def loss_drops(changes: tuple[float, ...], zeroed: tuple[float, ...] = ()) -> Drops:
    return Drops(
        measure="loss",
        unit="nats per token",
        better="lower",
        original=5.3,
        skipped=tuple(drop(layer, change) for layer, change in enumerate(changes, start=1)),
        zeroed=tuple(drop(layer, change) for layer, change in enumerate(zeroed, start=1)),
        tokens=4096,
        sequences=32,
    )


def task(measure: str, changes: tuple[float, ...], name: str = "") -> Drops:
    return Drops(
        measure=measure,
        task=name,
        unit="fraction of answers",
        better="higher",
        original=0.431,
        skipped=tuple(drop(layer, change, 0.431) for layer, change in enumerate(changes, start=1)),
        tokens=500,
        sequences=500,
    )


def angular(rows: tuple[tuple[float, ...], ...], influence: tuple[float, ...] = ()) -> Angular:
    return Angular(distance=rows, influence=influence or tuple(row[0] for row in rows), tokens=4096, convention="all")


def model(name: str, layers: int = 12, *, decay: float = 0.8, growth: float = 0.3, post: bool = False) -> Diagnosis:
    """A model of which everything was measured, with smooth figures.

    :param decay: by how much the angle between neighbours shrinks from layer to layer.
    :param growth: of the logarithm of the stream's variance, from layer to layer.
    :param post: whether zeroed branches are another thing than skipped layers.
    """
    noise = random.Random(name)

    def shaky(value: float) -> float:
        return value * math.exp(noise.gauss(0, 0.2))

    turns = [shaky(0.02 + 0.3 * decay**layer) for layer in range(layers)]
    rows = tuple(
        tuple(0.5 * math.tanh(2 * math.hypot(*turns[first : first + n])) for n in range(1, layers + 1 - first))
        for first in range(layers)
    )
    changes = tuple(shaky(8 if layer == 0 else 0.4 * decay**layer + 0.004) for layer in range(layers))
    changes = (*changes[:-2], -changes[-2] / 4, changes[-1])

    def profile(start: float, trend: float) -> Profile:
        values = [shaky(start * math.exp(trend * layer)) for layer in range(layers)]
        return Profile(attention=tuple(values), feed_forward=tuple(1.3 * value for value in values))

    def gradients(start: float, trend: float) -> Gradients:
        gate = tuple(-shaky(change) / 2 for change in changes)
        return Gradients(
            norm=profile(start, trend), gate=Profile(attention=gate, feed_forward=gate), loss=5.3, tokens=4096
        )

    share = tuple(shaky(0.4 * decay**layer + 0.05) for layer in range(layers))
    return Diagnosis(
        model=name,
        layers=layers,
        subject=ModelFacts(source=f"runs/{name}", family="llama", parameters=1_234_567, precision="float32"),
        text=TextSample(
            description="corpus.txt",
            tokens=4096,
            asked=4096,
            windows=32,
            length=128,
            held_out=3,
            held_out_documents=10,
        ),
        angular=angular(rows, tuple(1 - math.cos(math.pi * row[0]) for row in rows)),
        stream=ResidualStream(
            entry_variance=0.4,
            entry_norm=10.0,
            variance=profile(0.5, growth),
            norm=profile(12.0, growth / 2),
            share=Profile(attention=share, feed_forward=tuple(0.8 * value for value in share)),
            gains={
                "input_layernorm": tuple(shaky(0.3 + 0.05 * layer) for layer in range(layers)),
                "post_attention_layernorm": tuple(shaky(0.6) if layer % 4 else None for layer in range(layers)),
            },
        ),
        drops=dataclasses.replace(
            loss_drops(changes, tuple(change * (3 if post else 1) for change in changes)),
            blocks=(drop(2, 0.6, last=3), drop(5, 0.9, last=8)),
        ),
        tasks=(task("acc", tuple(-0.2 * decay**layer + 0.01 for layer in range(layers)), "arc_easy"),),
        gradients=gradients(0.2, -0.04),
        initial=gradients(0.9, -0.1),
        jacobian=Jacobian(
            largest=tuple(shaky(1.2 + 8 * decay**layer) for layer in range(layers)),
            distance=tuple(shaky(0.4 + 7 * decay**layer) for layer in range(layers)),
            typical=tuple(shaky(0.1 + 0.5 * decay**layer) for layer in range(layers)),
            tokens=64,
        ),
        omitted=(Omission(kind="no-loss", model_type="llama"),),
    )


def minimal(name: str, layers: int = 3) -> Diagnosis:
    """A model whose branches are not known, and of which only angles and the stream were measured."""
    rows = tuple(tuple(0.1 * n for n in range(1, layers + 2 - first)) for first in range(1, layers + 1))
    values = tuple(float(layer) for layer in range(1, layers + 1))
    whole, unknown = Profile(attention=(), feed_forward=values), Profile(attention=(), feed_forward=())
    return Diagnosis(
        model=name,
        layers=layers,
        angular=angular(rows),
        stream=ResidualStream(entry_variance=1.0, entry_norm=1.0, variance=whole, norm=whole, share=unknown, gains={}),
        omitted=(Omission(kind="unknown-branches", model_type="unheard-of"),),
    )


def selection(units: Units = "layers") -> Selection:
    """Four of twelve layers, or branches, by three methods."""
    side: Side | None = None if units == "layers" else "attention"

    def chosen(method: Method, layers: tuple[int, ...], change: float, path: tuple[float, ...] = ()) -> RemovedSet:
        return RemovedSet(
            method=method,
            parts=tuple(RemovedPart(layer=layer, side=side) for layer in layers),
            value=5.3 + change,
            change=change,
            low=change - 0.01,
            high=change + 0.01,
            parameters=200_000,
            path=path,
        )

    return Selection(
        units=units,
        measure="loss",
        unit="nats per token",
        better="lower",
        original=5.3,
        tokens=4096,
        sequences=32,
        candidates=12,
        parameters=1_234_567,
        sets=(
            chosen("greedy", (8, 3, 9, 11), 0.11, (0.01, 0.03, 0.06, 0.11)),
            chosen("one-shot", (8, 9, 10, 11), 0.21),
            chosen("contiguous", (7, 8, 9, 10), 0.31),
        ),
    )


def experts(layers: tuple[int, ...] = (1, 2, 4)) -> Experts:
    """Four experts in some layers, two of them chosen for each token; the last one of layer 2 never."""
    rows = {1: (0.6, 0.5, 0.5, 0.4), 2: (1.0, 0.75, 0.25, 0.0), 4: (0.5, 0.5, 0.5, 0.5)}
    weights = {1: (0.4, 0.3, 0.3, 0.2), 2: (0.6, 0.3, 0.1, None), 4: (0.5, 0.5, 0.5, 0.5)}
    return Experts(
        layers=layers,
        chosen=tuple(rows[layer] for layer in layers),
        weight=tuple(weights[layer] for layer in layers),
        per_token=2,
        tokens=4096,
    )


def complete() -> Diagnoses:
    """A model with everything that is measured only on request, or only of experts."""
    made = model("OLMoE")
    assert made.drops is not None
    halves = tuple(dataclasses.replace(each, change=each.change / 2) for each in made.drops.skipped)
    drops = dataclasses.replace(made.drops, attention=halves, feed_forward=made.drops.skipped)
    return diagnoses(dataclasses.replace(made, drops=drops, selection=selection(), experts=experts()))


def diagnoses(*models: Diagnosis) -> Diagnoses:
    return Diagnoses(
        settings={"models": [each.model for each in models], "text": {"file": "corpus.txt", "sequences": 16}},
        models=models,
        provenance=samples.PROVENANCE,
    )


def one() -> Diagnoses:
    """One model of 30 layers."""
    return diagnoses(model("SmolLM-135M", 30, decay=0.9, growth=0.15))


def four() -> Diagnoses:
    """Four placements, the last one deeper; two of them know zeroed branches apart."""
    return diagnoses(
        model("Pre-LN"),
        model("Post-LN", decay=0.98, growth=0.0, post=True),
        model("Mix-LN", decay=0.9, growth=0.2, post=True),
        model("HybridNorm*", 16, decay=0.93, growth=0.1),
    )


def bare() -> Diagnoses:
    """Nothing but angles and the stream, and no verdict."""
    return dataclasses.replace(diagnoses(minimal("bare")), settings={}, provenance=Provenance())


def mixed() -> Diagnoses:
    """Different depths and measures, and a model without branches."""
    other = dataclasses.replace(
        model("vision", 6), drops=task("accuracy", (-0.3, -0.1, 0.0, 0.01, -0.02, -0.2)), tasks=(), jacobian=None
    )
    return diagnoses(model("Pre-LN"), other, minimal("no branches", 4))


def hostile() -> Diagnoses:
    """Names, measures, sentences and facts that try to leave their place; `$` and `_` mean something to matplotlib."""
    evil = model(f"$\\frac{{$ [bold red] {HOSTILE}", 4)
    other = model("_a|b\n`c`\x1b[31m $x$ %{y}", 4)
    odd = dataclasses.replace(task(HOSTILE, (-0.1, 0.0, 0.1, -0.2)), unit='"><script>alert(2)</script>')
    gains = {HOSTILE: (1.0, 2.0, 3.0, 4.0), "$x": (1.0, 1.0, 1.0, 1.0)}
    return dataclasses.replace(
        diagnoses(
            dataclasses.replace(
                evil,
                tasks=(odd,),
                omitted=(Omission(kind="unknown-branches", model_type=HOSTILE),),
                subject=ModelFacts(source=HOSTILE, family=odd.unit),
                stream=dataclasses.replace(evil.stream, gains=gains),
            ),
            other,
        ),
        settings={HOSTILE: {HOSTILE: [HOSTILE]}},
        provenance=Provenance(versions={HOSTILE: HOSTILE}),
    )


def compared() -> Summary:
    """A comparison of four placements of which the second and third were diagnosed, and a model that is none of them."""
    diagnosed = (model("Post-LN", post=True), model("Mix-LN"), minimal("another"))
    return dataclasses.replace(samples.usual(), diagnoses=diagnosed)
