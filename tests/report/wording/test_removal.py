"""The sentences on sets that are removed together, and on experts."""

import dataclasses

import pytest

from mixln.diagnostics.findings import BestRemoval, IdleExperts, findings
from mixln.diagnostics.results import Experts, RemovedPart, Selection
from mixln.report.wording import removal
from mixln.report.wording.diagnosis import sentence
from tests.compare.records import one
from tests.report import diagnosis_samples as samples


def best(selection: Selection) -> BestRemoval:
    return one(findings(dataclasses.replace(samples.model("m"), selection=selection)), BestRemoval)


def idle(use: Experts) -> IdleExperts:
    return one(findings(dataclasses.replace(samples.model("m"), experts=use)), IdleExperts)


def test_the_best_set_and_the_others() -> None:
    assert sentence(best(samples.selection())) == (
        "Of 4 layers to remove, layers 3, 8, 9, 11 (greedy) cost least: +0.110 nats per token [+0.10, +0.12], 16.2% of the "
        "parameters; smallest single drops: +0.210 (layers 8–11) and best contiguous block: +0.310 (layers 7–10)."
    )


def test_a_set_whose_measure_is_not_finite_is_left_out() -> None:
    made = samples.selection()
    broken = dataclasses.replace(made.sets[0], value=float("nan"), change=float("nan"))
    finding = best(dataclasses.replace(made, sets=(broken, *made.sets[1:])))
    assert [each.method for each in finding.ranked] == ["one-shot", "contiguous"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([(3, None)], "layer 3"),
        ([(9, None), (3, None), (4, None)], "layers 3, 4, 9"),
        ([(5, None), (3, None), (4, None)], "layers 3–5"),
        (
            [(5, "feed-forward"), (3, "attention"), (4, "feed-forward")],
            "attention of layer 3, feed-forward of layers 4, 5",
        ),
    ],
)
def test_parts(parts, text) -> None:
    assert removal.parts(tuple(RemovedPart(layer=layer, side=side) for layer, side in parts)) == text


def test_the_chosen_set_of_prune() -> None:
    made = samples.selection()
    assert removal.chosen(made, made.sets[0]) == (
        "Layers 3, 8, 9, 11 removed (greedy): loss 5.300 → 5.410, +0.110 nats per token [+0.10, +0.12]"
    )


def test_experts_that_were_never_chosen() -> None:
    assert sentence(idle(samples.experts())) == "1 expert of 3 layers never chosen on this text: 3 in layer 2."
    assert sentence(idle(samples.experts((1, 4)))) == (
        "Every expert of 2 layers was chosen; the least used is expert 3 of layer 1, for 40.00% of the tokens (50.0% if all were used "
        "equally)."
    )
