"""Outcomes that mixln 0.1 wrote are read as they are written now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixln.recipes.former import as_published, reproduction
from mixln.recipes.results import (
    REPRODUCTION,
    DeviationStudy,
    Interval,
    Line,
    MeasuredQuantity,
    OrderingResult,
    Reproduction,
    TrainedRun,
    VariantResult,
)
from mixln.records import from_json, to_json
from mixln.runs.former import former_hardware
from mixln.runs.provenance import Hardware

MEASURED = {
    "run": "LLaMA-130M",
    "placement": "post",
    "published": None,
    "value": 0.56,
    "low": 0.11,
    "high": 1.02,
    "seeds": 3,
    "trained": 2,
    "scale": "natural logarithm",
}
ORDERING = {
    "ahead": ["LLaMA-130M", "post"],
    "behind": ["LLaMA-130M", "pre"],
    "published": [None, None],
    "difference": {"mean": 1.99, "low": 0.88, "high": 3.1, "pairs": 2},
    "ours": False,
}
FORMER = {
    "recipe": "figure3",
    "title": "Figure 3: Post-LN and Pre-LN, layer by layer",
    "source": "Mix-LN, arXiv:2412.13795, Figure 3",
    "reading": "Adam is run as AdamW without decay.",
    "scale": "cpu",
    "scaled": "width an eighth",
    "command": "mixln reproduce figure3",
    "settings": [
        "LLaMA-130M: tiny; post, pre; learning rate 0.003; seeds 0, 1, 2; 1,300 steps of 8 × 128 tokens, 4 at a time; init as each "
        "placement has it",
        "ViT: vit-tiny; pre, mix(0.25); learning rates 0.001, 0.003; seeds 0; 1.5 epochs, 64 images a step; init megatron",
    ],
    "measured": [
        {"quantity": "angular distance, deeper half over earlier half", **MEASURED},
        {"quantity": "accuracy of arc_easy", **MEASURED},
        {"quantity": "perplexity", **MEASURED},
    ],
    "orderings": [
        {"quantity": "unevenness of the gradient norms at the start", "verdict": verdict, **ORDERING}
        for verdict in ("held", "did not hold", "guesses", "one of a kind", "not measured", "undecided", "failed")
    ],
    "seconds": 812.5,
    "swept": [],
    "lines": [
        {
            "curve": curve,
            "run": "LLaMA-130M",
            "placement": "post",
            "seed": 1,
            "label": label,
            "points": [[1.0, 0.0017], [2.0, 0.0019]],
        }
        for curve, label in (
            ("performance drop", "loss, nats per token"),
            ("gradient norm at the start", "gradient norm"),
            ("perplexity over the course", "held-out perplexity"),
        )
    ],
    "turned": [],
    "facts": {
        "machine": "2 processor cores; 2 trials side by side, 1 threads each",
        "versions": "python 3.11.7, mixln 0.1.0, torch 2.13.0+cpu",
        "commit": "6d6a660b7b546bc32473ce159bb189a64a832f9e",
    },
}


def test_an_outcome_in_its_present_form() -> None:
    found = from_json(Reproduction, reproduction(FORMER))
    assert (found.recipe, found.scale, found.only, found.command, found.seconds) == (
        "figure3",
        "cpu",
        (),
        "mixln reproduce figure3",
        812.5,
    )
    assert [each.quantity for each in found.measured] == ["angle-contrast", "accuracy-arc_easy", "perplexity"]
    numbers = from_json(MeasuredQuantity, {"quantity": "perplexity", **MEASURED})
    assert found.measured[2] == numbers
    assert [each.verdict for each in found.orderings] == [
        "held",
        "reversed",
        "at-chance",
        "single-seed",
        "not-measured",
        "undecided",
        "failed",
    ]
    assert found.orderings[0] == OrderingResult(
        quantity="gradient-unevenness",
        ahead=("LLaMA-130M", "post"),
        behind=("LLaMA-130M", "pre"),
        published=(None, None),
        difference=Interval(mean=1.99, low=0.88, high=3.1, pairs=2),
        verdict="held",
    )
    points = ((1.0, 0.0017), (2.0, 0.0019))
    shared = {"run": "LLaMA-130M", "placement": "post", "seed": 1, "points": points}
    assert found.lines == (
        Line(curve="drops", measure="loss", unit="nats per token", **shared),
        Line(curve="gradients", **shared),
        Line(curve="course", **shared),
    )


def test_what_was_trained_and_by_what() -> None:
    found = from_json(Reproduction, reproduction(FORMER))
    assert found.trained == (
        TrainedRun(
            run="LLaMA-130M",
            model="tiny",
            placements=("post", "pre"),
            learning_rates=(0.003,),
            seeds=(0, 1, 2),
            init=None,
            batch_size=8,
            micro_batch_size=4,
            steps=1300,
            sequence_length=128,
        ),
        TrainedRun(
            run="ViT",
            model="vit-tiny",
            placements=("pre", "mix(0.25)"),
            learning_rates=(0.001, 0.003),
            seeds=(0,),
            init="megatron",
            batch_size=64,
            epochs=1.5,
        ),
    )
    (provenance,) = found.provenance
    assert provenance.versions == {"python": "3.11.7", "mixln": "0.1.0", "torch": "2.13.0+cpu"}
    assert provenance.commits == ("6d6a660b7b546bc32473ce159bb189a64a832f9e",)
    assert provenance.hardware == (Hardware(cores=2, trials=2, threads=1),)


def test_a_recipe_that_was_restricted_to_some_models() -> None:
    former = {**FORMER, "title": f"{FORMER['title']}; LLaMA-71M, LLaMA-130M alone"}
    assert from_json(Reproduction, reproduction(former)).only == ("LLaMA-71M", "LLaMA-130M")


def test_an_outcome_as_published() -> None:
    former = {name: FORMER[name] for name in ("recipe", "title", "source", "scale", "scaled", "command", "measured")}
    effect = {"ordering": FORMER["orderings"][1], "change": None}
    varied = {name: FORMER[name] for name in ("settings", "measured", "seconds", "facts")}
    former |= {
        "orderings": FORMER["orderings"],
        "varied": [{"name": "evaluation+bfloat16", "what": "In words.", "effects": [effect], **varied}],
    }
    found = from_json(DeviationStudy, as_published(former))
    (made,) = found.varied
    assert isinstance(made, VariantResult)
    assert (made.name, made.effects[0].ordering.verdict, len(made.trained)) == ("evaluation+bfloat16", "reversed", 2)


def test_a_line_that_was_never_written_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        reproduction({**FORMER, "settings": ["A: tiny"]})


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / REPRODUCTION.file
    path.write_text(json.dumps(FORMER), "utf-8")
    assert REPRODUCTION.read(path) == from_json(Reproduction, reproduction(FORMER))


@pytest.mark.parametrize(
    ("text", "hardware"),
    [
        ("", ()),
        ("one trial", ()),
        (
            "NVIDIA H200, NVIDIA H200, 16 processor cores; 2 trials side by side, 8 threads each",
            (Hardware(gpus=("NVIDIA H200", "NVIDIA H200"), cores=16, trials=2, threads=8),),
        ),
        ("4 processor cores; one trial at a time", (Hardware(cores=4),)),
        (
            "8 processor cores; one trial at a time, on 4 processes together; a Ray cluster; 2 processor cores and 0.5 GPUs a trial",
            (Hardware(cores=8, processes=4), Hardware(cores=2.0, gpus_per_trial=0.5)),
        ),
    ],
)
def test_hardware_in_the_words_of_an_earlier_version(text: str, hardware: tuple[Hardware, ...]) -> None:
    assert former_hardware(text) == hardware
    assert tuple(from_json(Hardware, to_json(each)) for each in hardware) == hardware
