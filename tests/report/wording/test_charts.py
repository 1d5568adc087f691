"""The words around charts, tables and pages that depend on what they show."""

from __future__ import annotations

import dataclasses
import math

import pytest

from mixln.compare.metrics import BITS_PER_BYTE, PERPLEXITY
from mixln.diagnostics.results import Drops
from mixln.report.wording import charts, comparison_charts, diagnosis_charts, nouns, pages, tables, training
from mixln.runs.outcome import ValueWithError
from tests.compare.chains import tuned
from tests.report import diagnosis_samples as samples

LOSS, ACCURACY = samples.loss_drops((0.1, 0.2)), samples.task("acc", (-0.3, 0.1), "arc_easy")


def drops(*every: Drops, shared: bool = True, circles: bool = False, crosses: bool = False) -> str:
    named = [("a", each) for each in every]
    return diagnosis_charts.drops("", named, [], circles=circles, crosses=crosses, shared=shared).caption


@pytest.mark.parametrize(
    ("panels", "text"),
    [
        ([("a", 0.0), ("b", 0.0)], ""),
        (
            [("a", 0.01), ("b", 0.01)],
            " The vertical axis is linear between −0.01 and 0.01, and logarithmic beyond.",
        ),
        (
            [("a", 0.01), ("b", 0.0), ("c", 2.0)],
            " In “a” the vertical axis is linear between −0.01 and 0.01, and logarithmic beyond. In “c” the vertical axis is "
            "linear "
            "between −2 and 2, and logarithmic beyond.",
        ),
    ],
)
def test_bent_axes_are_explained(panels: list[tuple[str, float]], text: str) -> None:
    assert charts.bent(panels) == text


def test_the_caption_states_the_sign_of_harm() -> None:
    assert "Above zero the layer is needed, below zero the model is better without it." in drops(LOSS)
    assert "Below zero the layer is needed, above zero the model is better without it." in drops(ACCURACY)
    both = drops(LOSS, ACCURACY, shared=False)
    assert "Where lower P is better, above zero the layer is needed" in both
    assert "Where higher P is better, below zero the layer is needed" in both
    assert both.endswith("The models have different measures: do not compare bars between them.")
    assert "✕" not in both
    assert "✕: not finite." in drops(LOSS, crosses=True)
    assert "Circles: the layer's branches set to zero" in drops(LOSS, circles=True)


def test_one_drop() -> None:
    each = dataclasses.replace(LOSS.skipped[0], last=3)
    assert diagnosis_charts.drop(LOSS.skipped[0], LOSS) == "layer 1: +0.100 nats per token [+0.080, +0.12]"
    assert diagnosis_charts.drop(each, LOSS).startswith("layers 1 to 3: +0.100")
    lost = dataclasses.replace(each, change=math.inf, low=None, high=None, last=1)
    assert diagnosis_charts.drop(lost, LOSS) == "layer 1: not finite"
    assert diagnosis_charts.measure(ACCURACY) == "acc of arc_easy"
    assert diagnosis_charts.drops_panel("a", ACCURACY) == "a: acc of arc_easy 0.4310 with all layers"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (0.5, "before layer 1: 2.000"),
        (3.0, "after layer 3's attention: 2.000"),
        (3.5, "after layer 3: 2.000"),
    ],
)
def test_a_depth(place: float, text: str) -> None:
    assert diagnosis_charts.depth(place, 2.0) == text


def test_the_angles_of_blocks() -> None:
    assert diagnosis_charts.block_angle(3, 1, 0.05) == "layer 3: angle 0.050 π"
    cell = diagnosis_charts.block_angle(2, 2, 0.2)
    assert cell == "layers 2 to 3: angle 0.200 π"
    assert diagnosis_charts.least_angle(cell, 2) == f"{cell}, the smallest of 2"
    assert diagnosis_charts.angular(["all"], [("a", 3)]).description.endswith("a has its smallest angle in layer 3.")


def test_the_charts_of_a_comparison_name_its_task() -> None:
    ends = [("Pre-LN", "5.320", 0), ("Post-LN", "4.500", 1)]
    loss = comparison_charts.loss("language", ends, "7.050", diverged=False)
    assert loss.description == (
        "Line chart of the loss against steps. Held-out loss at the end, nats per token: Pre-LN 5.320; Post-LN 4.500 / stalled; "
        "unigram "
        "baseline 7.050."
    )
    assert "diverged" not in loss.caption
    assert "marks where a diverged trial ended" in comparison_charts.loss("vision", ends, "2.3", diverged=True).caption
    assert comparison_charts.ranking("vision", ends, "10%", diverged=False).title == "Accuracy at the end of training"
    assert comparison_charts.loss_axis("vision") == "loss, nats per image"
    assert comparison_charts.ranking_axis("language") == "perplexity"


@pytest.mark.parametrize(
    ("steps", "text"),
    [([], "attention, start"), ([1, 1], "attention, start (step 1)"), ([1, 300], "attention, start (steps 1–300)")],
)
def test_a_panel_of_profiles(steps: list[int], text: str) -> None:
    assert comparison_charts.profile("attention", "start", steps) == text


def test_the_caption_of_a_comparison() -> None:
    assert tables.comparison("language", "Pre-LN", tuned=False) == (
        "Difference: percent of perplexity against Pre-LN, paired by seed, with its 95% confidence interval; negative is better. "
        "Perplexity and difference are over the seeds that trained, if some did. Ended: trials that finished, and how the others "
        "ended."
    )
    tuned_caption = tables.comparison("vision", "Pre-LN", tuned=True)
    assert "percentage points of accuracy against Pre-LN" in tuned_caption
    assert "positive is better" in tuned_caption
    assert tuned_caption.endswith(
        "(all learning rates; top-5 accuracy, calibration error, loss and images/s are at the best one)."
    )


def test_headings_are_full_where_they_stand_alone() -> None:
    assert tables.difference("Pre-LN", 0.001).full == "difference from Pre-LN at 0.001"
    assert tables.difference("Pre-LN", 0.001).short == "difference"
    assert tables.at_common("perplexity", 0.001).full == "perplexity at 0.001"
    assert tables.metric(PERPLEXITY).full == "perplexity"
    assert tables.metric(BITS_PER_BYTE).short == "bits/\nbyte"
    assert tables.throughput("vision").full == "images/s"
    assert tables.best_rate(tuned=True).full == "best learning rate"


def test_the_caption_of_scores_explains_what_there_is() -> None:
    assert tables.scores(shares=False, errors=False, chance=False, pairs=False) == ""
    assert tables.scores(shares=True, errors=False, chance=True, pairs=False) == (
        "Accuracies in percent. Chance level: expected accuracy of a random choice."
    )


def test_the_nouns_of_tasks() -> None:
    assert (nouns.nouns("language").units, nouns.nouns("vision").units) == ("tokens", "images")
    assert nouns.nouns("vision").floor == "most frequent class"


def test_pages() -> None:
    assert pages.comparison(["Pre-LN", "Mix-LN"]).title == "mixln compare: Pre-LN, Mix-LN"
    assert pages.taken_for("Shirt", "Coat") == "Shirt, predicted as Coat"
    assert pages.every_trial(24) == "Every trial (24)"


def test_the_notes_of_a_training() -> None:
    plain = tuned(reward=0.5)
    assert training.notes(plain) == ()
    (note,) = training.notes(dataclasses.replace(plain, after={"kl": ValueWithError(value=-0.1)}))
    assert note.startswith("A negative KL estimate is sampling noise")
    (hacking,) = training.notes(tuned(reward=2.0, accuracy=0.9))
    assert "a sign of reward hacking" in hacking
