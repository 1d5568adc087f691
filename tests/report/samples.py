"""Summaries made by hand, for the tests of the report and for looking at it."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import random

import numpy as np
from PIL import Image

from mixln.compare.results import (
    Cell,
    DiagnosisFailure,
    FrequencyBaseline,
    Interval,
    Misclassification,
    PlacementPredictions,
    PlacementSummary,
    RunWarnings,
    Summary,
    TrialLength,
)
from mixln.data.text import TextInfo
from mixln.placement import placement
from mixln.placement.preflight import risks
from mixln.runs.outcome import Status
from mixln.runs.profile import LayerProfile
from mixln.runs.provenance import Hardware, Provenance
from mixln.runs.trials import Trial, TrialResult

HOSTILE = "</script><img src=x onerror=alert(1)>"
FLOOR = FrequencyBaseline(loss=7.05, bits_per_byte=2.61)
TEXT = TextInfo(
    description="corpus.txt",
    fingerprint="0" * 20,
    vocabulary_size=2048,
    documents=90,
    held_out_documents=10,
    train_tokens=3_100_000,
    held_out_tokens=312_448,
    held_out_bytes=1_240_000,
    unigram_loss=7.05,
)
PROVENANCE = Provenance(
    versions={"mixln": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    commits=("0123abcd",),
    hardware=(Hardware(cores=2, trials=2, threads=1),),
)

PRE, POST, MIX, HYBRID = (
    ("pre", "Pre-LN", "normal"),
    ("post", "Post-LN", "normal"),
    ("mix(0.25)", "Mix-LN", "normal"),
    ("hybrid*", "HybridNorm*", "megatron"),
)
EIGHT = (
    PRE,
    POST,
    MIX,
    HYBRID,
    ("deepnorm", "DeepNorm", "deepnorm"),
    ("sandwich", "Sandwich-LN", "normal"),
    ("peri", "Peri-LN", "normal"),
    ("lns", "LayerNorm Scaling", "normal"),
)


def result(
    name: tuple[str, str, str],
    learning_rate: float = 1e-3,
    seed: int = 0,
    *,
    loss: float | None = 5.0,
    status: Status = "finished",
    reason: str = "",
    step: int = 300,
    slope: float = -0.03,
    layers: int = 12,
) -> TrialResult:
    """One trial with smooth curves from 8.3 to `loss`.

    :param slope: growth of the logarithm of the gradient norm from layer to layer.
    """
    noise = random.Random(f"{name}{learning_rate}{seed}")
    end = loss if loss is not None else 9.5

    def at(t: float) -> float:
        fallen = end + (8.3 - end) * math.exp(-5 * t) if end < 8.3 else 8.3 - 1.5 * t + 6 * max(0.0, t - 0.6)
        return fallen

    train = tuple((s, at(s / step) + noise.gauss(0, 0.05)) for s in range(min(10, step), step + 1, 10))
    held = tuple((s, at(s / step) + 0.03) for s in range(0, step + 1, 30))
    if loss is not None:
        held = (*(point for point in held if point[0] < step), (step, loss))

    def profile(at_step: int, scale: float, trend: float, ff: float) -> LayerProfile:
        values = [scale * math.exp(trend * layer + noise.gauss(0, 0.08)) for layer in range(layers)]
        return LayerProfile(step=at_step, attention=tuple(values), feed_forward=tuple(value * ff for value in values))

    growth = {"pre": 0.32, "post": 0.0, "mix(0.25)": 0.22, "hybrid*": 0.12}.get(name[0], 0.15)
    return TrialResult(
        trial=Trial(placement=name[0], init=name[2], learning_rate=learning_rate, seed=seed),
        status=status,
        reason=reason,
        step=step,
        tokens=step * 8192,
        loss=loss,
        bits_per_byte=None if loss is None else loss * 0.37,
        tokens_per_second=21_345.6 + 100 * seed,
        seconds=step * 0.41,
        train_curve=train,
        eval_curve=held,
        gradient_norms=(profile(1, 0.5, slope, 1.4), profile(step, 0.12, 2 * slope, 1.6)),
        residual_variance=(profile(0, 0.4, growth / 3, 1.05), profile(step, 0.9, growth, 1.1)),
    )


def cell(results: list[TrialResult], difference: Interval | None = None) -> Cell:
    """What the comparison would say of these trials; the difference is given."""
    losses = [r.loss for r in results if r.loss is not None]
    count = {
        status: sum(r.status == status for r in results) for status in ("finished", "stalled", "diverged", "failed")
    }
    mean = sum(losses) / len(losses) if losses else None
    return Cell(
        learning_rate=results[0].trial.learning_rate,
        seeds=len(results),
        loss=mean,
        loss_deviation=None,
        bits_per_byte=None if mean is None else mean * 0.37,
        tokens_per_second=21_345.6,
        difference=difference,
        **count,
    )


def row(name: tuple[str, str, str], cells: list[Cell], best: int = 0, common: int = 0) -> PlacementSummary:
    return PlacementSummary(
        placement=name[0], title=name[1], init=name[2], best=cells[best], common=cells[common], cells=tuple(cells)
    )


def summary(rows: list[PlacementSummary], trials: list[TrialResult], **changes: object) -> Summary:
    made = Summary(
        settings={
            "placements": [r.placement for r in rows],
            "model": {"hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 688},
            "steps": 300,
            "global_batch": 32,
            "sequence_length": 256,
            "warm_up": 0.1,
            "seeds": 2,
            "data": "corpus.txt",
        },
        folder="runs/first",
        parameters=9_437_184,
        length=TrialLength(steps=300, amount=2_457_600),
        text=TEXT,
        provenance=PROVENANCE,
        baseline="pre",
        floor=FLOOR,
        placements=tuple(rows),
        trials=tuple(trials),
        warnings=RunWarnings(risks=risks(placement("post", 12), init="normal", warms_up=False)),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def usual() -> Summary:
    """Four placements, one learning rate, two seeds; Post-LN stalls."""
    pre = [result(PRE, seed=0, loss=5.30, slope=-0.06), result(PRE, seed=1, loss=5.34, slope=-0.06)]
    reason = "held-out loss 7.08 is no better than the unigram model's 7.05"
    post = [
        result(POST, seed=seed, loss=7.06 + 0.02 * seed, status="stalled", reason=reason, slope=0.35) for seed in (0, 1)
    ]
    mix = [result(MIX, seed=0, loss=5.20, slope=0.02), result(MIX, seed=1, loss=5.24, slope=0.02)]
    hybrid = [result(HYBRID, seed=0, loss=5.01, slope=-0.01), result(HYBRID, seed=1, loss=5.046, slope=-0.01)]
    return summary(
        [
            row(PRE, [cell(pre)]),
            row(POST, [cell(post, Interval(mean=1.75, low=1.62, high=1.88, pairs=2))]),
            row(MIX, [cell(mix, Interval(mean=-0.1, low=-0.134, high=-0.066, pairs=2))]),
            row(HYBRID, [cell(hybrid, Interval(mean=-0.292, low=-0.371, high=-0.212, pairs=2))]),
        ],
        [*pre, *post, *mix, *hybrid],
    )


def one_seed() -> Summary:
    """Two placements, one seed: differences without interval; Post-LN diverges without a loss."""
    pre, mix = [result(PRE, loss=5.3)], [result(MIX, loss=5.2)]
    post = [result(POST, loss=None, status="diverged", reason="the loss is not finite", step=40)]
    return summary(
        [
            row(PRE, [cell(pre)]),
            row(MIX, [cell(mix, Interval(mean=-0.1, low=None, high=None, pairs=1))]),
            row(POST, [cell(post)]),
        ],
        [*pre, *mix, *post],
        warnings=RunWarnings(),
    )


def several_rates() -> Summary:
    """Four placements, three learning rates, two seeds; some trials at the highest diverge or stall."""
    rates = (3e-4, 1e-3, 3e-3)
    losses = {PRE: (5.5, 5.3, 5.42), POST: (5.6, 7.07, None), MIX: (5.45, 5.22, 5.3), HYBRID: (5.38, 5.1, 5.03)}
    best = {PRE: 1, POST: 0, MIX: 1, HYBRID: 2}
    rows, trials = [], []
    for name, row_losses in losses.items():
        cells = []
        for index, (rate, loss) in enumerate(zip(rates, row_losses, strict=True)):
            status: Status = "diverged" if loss is None else "stalled" if loss > 7 else "finished"
            step = 300 if loss is not None else 40
            group = [
                result(
                    name,
                    rate,
                    seed,
                    loss=None if loss is None else loss + 0.03 * seed,
                    status=status,
                    step=step + 30 * seed * (loss is None),
                )
                for seed in (0, 1)
            ]
            trials += group
            mean = (
                None
                if loss is None or name == PRE
                else Interval(mean=loss - 5.3, low=loss - 5.4, high=loss - 5.2, pairs=2)
            )
            cells.append(cell(group, None if index != best[name] and index != 1 else mean))
        rows.append(row(name, cells, best[name], 1))
    return summary(rows, trials)


def eight() -> Summary:
    """Eight placements, one learning rate, three seeds."""
    rows, trials = [], []
    for index, name in enumerate(EIGHT):
        group = [
            result(name, seed=seed, loss=5.5 - 0.06 * index + 0.02 * seed, slope=0.08 * (index - 4))
            for seed in range(3)
        ]
        trials += group
        mean = -0.06 * index
        rows.append(
            row(
                name,
                [cell(group, None if name == PRE else Interval(mean=mean, low=mean - 0.08, high=mean + 0.08, pairs=3))],
            )
        )
    return summary(rows, trials)


def bare() -> Summary:
    """A failed trial without a number, and a stalled one without curves."""
    failed = dataclasses.replace(
        result(PRE, loss=None, status="failed", reason="out of memory", step=1),
        train_curve=(),
        eval_curve=(),
        gradient_norms=(),
        residual_variance=(),
        bits_per_byte=None,
        tokens_per_second=None,
    )
    stalled = dataclasses.replace(
        result(POST, loss=7.1, status="stalled"), train_curve=(), eval_curve=(), gradient_norms=(), residual_variance=()
    )
    empty = dataclasses.replace(cell([failed]), tokens_per_second=None)
    return summary(
        [row(PRE, [empty]), row(POST, [cell([stalled])])],
        [failed, stalled],
        text=None,
        provenance=Provenance(),
        warnings=RunWarnings(),
        settings={},
    )


def hostile() -> Summary:
    """Names, reasons, settings and facts that try to leave their place; `$` and `_` mean something to matplotlib."""
    evil = (HOSTILE, f"</title></style>{HOSTILE}<b>$\\frac{{$ [bold red]", '"><script>alert(2)</script>')
    under = ("_`|`*", "_a|b\n`c`\x1b[31m $x$ %{y}", "{{init}}")
    first = [result(evil, seed=seed, reason=HOSTILE, status="stalled", loss=7.1) for seed in (0, 1)]
    second = [result(under, seed=seed) for seed in (0, 1)]
    return summary(
        [row(evil, [cell(first)]), row(under, [cell(second)])],
        [*first, *second],
        baseline=evil[0],
        folder=HOSTILE,
        text=dataclasses.replace(TEXT, description=HOSTILE),
        warnings=RunWarnings(undiagnosed=(DiagnosisFailure(model=HOSTILE, error="<!-- <script>"),)),
        settings={HOSTILE: {HOSTILE: [HOSTILE]}},
        provenance=Provenance(versions={HOSTILE: HOSTILE}),
    )


def pictures() -> Summary:
    """Image classifiers: three placements, two seeds; the accuracy, not the loss, is what they are compared by."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    accuracies = {PRE: (0.861, 0.864), MIX: (0.882, 0.887), POST: (0.1, 0.1)}
    intervals = {
        PRE: None,
        MIX: Interval(mean=0.022, low=0.0093, high=0.0347, pairs=2),
        POST: Interval(mean=-0.7625, low=-0.7816, high=-0.7434, pairs=2),
    }
    trials: list[TrialResult] = []
    rows: list[PlacementSummary] = []
    for name, values in accuracies.items():
        made = [
            dataclasses.replace(
                result(name, seed=seed, loss=2.3 * (1 - value), status="stalled" if value < 0.2 else "finished"),
                bits_per_byte=None,
                figures={"accuracy": value, "top5": 0.99, "calibration": 0.031},
            )
            for seed, value in enumerate(values)
        ]
        figures = {"accuracy": sum(values) / 2, "top5": 0.99, "calibration": 0.031}
        rows.append(row(name, [dataclasses.replace(cell(made, intervals[name]), bits_per_byte=None, figures=figures)]))
        trials += made
    mistake = Misclassification(image=image, label="Shirt", predicted=HOSTILE, confidence=0.987)
    answered = PlacementPredictions(
        placement="pre", reliability=((0.45, 0.5, 40), (0.95, 0.9, 900), (0.2, 0.1, 3)), mistakes=(mistake, mistake)
    )
    floor = FrequencyBaseline(loss=math.log(10), figures={"accuracy": 0.1})
    return summary(rows, trials, task="vision", floor=floor, answered=(answered,), text=None)
