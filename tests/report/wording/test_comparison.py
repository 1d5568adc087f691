"""The sentences of a comparison's verdict."""

from __future__ import annotations

import pytest

from mixln.compare.findings import (
    AgainstBaseline,
    FailedTrials,
    FewSeeds,
    InitsDiffer,
    Leader,
    LengthCaveat,
    NothingTrained,
    RunnerUp,
    SingleLearningRate,
    StallRule,
    TunedOnHeldOut,
    UncorrectedSelection,
)
from mixln.compare.results import TrialLength
from mixln.findings import Finding
from mixln.report.wording.comparison import length, sentence, verdict
from tests.compare.records import all_of, found, result, results, summary
from tests.compare.test_findings import grid
from tests.compare.test_metrics import classifiers


def said(kind: type[Finding], trials, task="language") -> str:
    """The sentence of the only finding of a kind."""
    (finding,) = all_of(found(trials, task=task), kind)
    return sentence(finding, task)


def test_sentences_stand_in_the_order_of_the_findings() -> None:
    trials = [*results("pre", [3.00, 3.01]), *results("post", [2.50, 2.51]), *results("lns", [2.80, 2.81])]
    assert verdict(summary(trials)) == tuple(sentence(finding, "language") for finding in found(trials))


CLEAR = [*results("pre", [3.00, 3.01, 3.02]), *results("mix(0.25)", [2.90, 2.92, 2.91])]
SURVIVED = [*results("pre", [5.0, 5.01, 5.02]), *results("post", [4.9, None, 4.91])]


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        (
            CLEAR,
            "Title of mix(0.25) (mix(0.25)) has the lowest held-out perplexity, 18.4, at learning rate 0.001: −9.5% [−11.7, −7.2] "
            "against "
            "the baseline Title of pre. The 95% interval excludes zero. On this model and this text, at this training length and "
            "learning "
            "rate, the difference is larger than the variation between seeds.",
        ),
        (
            grid(1e-3),
            "Title of post has the lowest held-out perplexity, 16.6, each at its best learning rate: −17.9% [−19.0, −16.7] "
            "against the "
            "baseline Title of pre. The 95% interval excludes zero. On this model and this text, at this training length, the "
            "difference "
            "is larger than the variation between seeds.",
        ),
        (
            [*results("pre", [3.00, 3.10]), *results("post", [2.90, 3.15])],
            "Title of post has the lowest held-out perplexity, 20.6, at learning rate 0.001: −2.5% [−62.4, +152.9] against the "
            "baseline "
            "Title of pre. The 95% interval includes zero: the difference is not significant over these seeds.",
        ),
        (
            [*results("pre", [2.90, 2.91, 2.92]), *results("post", [3.00, 3.02, 3.01])],
            "The baseline Title of pre has the lowest held-out perplexity, 18.4, at learning rate 0.001; its difference from "
            "every other "
            "placement that trained is significant (95% interval excludes zero).",
        ),
        (
            [*results("pre", [3.0, 3.0]), *results("post", [3.0, 3.2])],
            "The baseline Title of pre has the lowest held-out perplexity, 20.1, at learning rate 0.001, but its difference from "
            "post is "
            "not significant over these seeds.",
        ),
        (
            SURVIVED,
            "The baseline Title of pre has the lowest held-out perplexity of the placements that trained at 3 of 3 seeds, 149.9, "
            "at "
            "learning rate 0.001, but its difference from post is not significant over these seeds.",
        ),
        (
            [*results("pre", [3.0, 3.1]), *results("post", [None, None])],
            "The baseline Title of pre has the lowest held-out perplexity, 21.1, at learning rate 0.001; no other placement "
            "trained.",
        ),
        (
            [result("pre", 3.0), result("post", 2.0)],
            "Title of post has the lowest held-out perplexity, 7.4, at learning rate 0.001. With a single seed there is no "
            "confidence "
            "interval, and no claim can be made.",
        ),
        (
            [*results("pre", [3.0, None]), *results("post", [2.5, 2.6])],
            "Title of post has the lowest held-out perplexity, 12.8, at learning rate 0.001: −39.3% (n = 1, no interval) against "
            "the "
            "baseline Title of pre. Only one seed is common to both: there is no confidence interval, and no claim can be made.",
        ),
        (
            [*results("pre", [6.0, 6.01], status="stalled"), *results("post", [4.0, 4.01])],
            "Title of post has the lowest held-out perplexity, 54.9, at learning rate 0.001: −86.5% (n = 2, all equal) against the "
            "baseline Title of pre. The baseline did not train at any seed, so this does not compare two trained models.",
        ),
    ],
)
def test_the_leader(trials, text: str) -> None:
    assert said(Leader, trials) == text


def test_a_leader_without_a_seed_in_common() -> None:
    pre = [result("pre", None, seed=0), result("pre", 3.0, seed=1)]
    post = [result("post", 2.9, seed=0), result("post", 2.8, seed=2)]
    assert said(Leader, [*pre, *post]).endswith("; it has no seed in common with the baseline Title of pre.")


def test_the_leader_of_classifiers_has_the_highest_accuracy() -> None:
    trials = [*classifiers("pre", [0.90, 0.901]), *classifiers("mix(0.25)", [0.95, 0.9512])]
    text = said(Leader, trials, "vision")
    assert text.startswith(
        "Title of mix(0.25) (mix(0.25)) has the highest held-out accuracy, 95.1%, at learning rate 0.001: +5.01 points ["
    )
    assert "On this model and these images, at this training length and learning rate," in text


def test_identical_differences_support_no_claim() -> None:
    text = said(Leader, [*classifiers("pre", [0.5, 0.75]), *classifiers("post", [0.625, 0.875])], "vision")
    assert ": +12.50 points (n = 2, all equal) against the baseline" in text
    assert text.endswith(
        "The difference is identical at every seed, so the variation between seeds is unknown and no claim can be made."
    )


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (
            [4.81, 4.80, 4.82],
            "The runner-up, Title of lns, has perplexity 122.7: +0.7% [−3.1, +4.6] against Title of mix(0.25) (mix(0.25)), not "
            "significant "
            "over these seeds.",
        ),
        (
            [4.9, 4.91, 4.92],
            "The runner-up, Title of lns, has perplexity 135.6: +11.3% [+8.1, +14.5] against Title of mix(0.25) (mix(0.25)), "
            "significantly "
            "worse.",
        ),
    ],
)
def test_the_runner_up(losses: list[float], text: str) -> None:
    trials = [*results("pre", [5.0, 5.01, 5.02]), *results("mix(0.25)", [4.80, 4.81, 4.80]), *results("lns", losses)]
    assert said(RunnerUp, trials) == text


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        (
            [*results("pre", [2.90, 2.91, 2.92]), *results("post", [3.00, 3.02, 3.01])],
            "Title of post against Title of pre: +10.5% [+7.8, +13.3] in perplexity: significantly worse than the baseline.",
        ),
        (
            grid(1e-3),
            "Title of post against Title of pre: −17.9% [−19.0, −16.7] in perplexity, each at its best learning rate; −25.7% "
            "[−26.7, "
            "−24.6] at the common learning rate 0.001: significantly better than the baseline.",
        ),
        (
            [*results("pre", [3.0, 3.0]), *results("post", [3.0, 3.2])],
            "Title of post against Title of pre: +10.5% [−69.0, +293.8] in perplexity: not significant over these seeds.",
        ),
        (
            SURVIVED,
            "Title of post against Title of pre: −10.0% [−15.5, −4.1] in perplexity, over the 2 of 3 seeds for which both have a "
            "value.",
        ),
        (
            [*results("pre", [3.0, 3.2]), result("post", 2.5), result("post", 6.2, seed=1, status="stalled")],
            "Title of post against Title of pre: −39.3% (n = 1, no interval) in perplexity, over the 1 of 2 seeds at which both "
            "trained; "
            "Title of post stalled at 1, Title of pre at 0.",
        ),
        (
            [result("pre", 3.0), result("post", 2.0)],
            "Title of post against Title of pre: −63.2% (n = 1, no interval) in perplexity.",
        ),
        (
            [*results("pre", [4.0, 4.01]), *results("post", [6.0, 6.02], status="stalled")],
            "Title of post against Title of pre: +642.6% [+596.9, +691.3] in perplexity; Title of post stalled at every seed, so "
            "this does "
            "not compare two trained models.",
        ),
        (
            [*results("pre", [3.0, 3.1]), *results("post", [None, None])],
            "Title of post has no held-out perplexity to compare with Title of pre.",
        ),
    ],
)
def test_a_placement_against_the_baseline(trials, text: str) -> None:
    assert said(AgainstBaseline, trials) == text


def test_trials_that_did_not_train() -> None:
    trials = [
        *results("pre", [3.0, 3.0, 3.0, 3.0]),
        result("post", 7.0, seed=0, status="stalled"),
        result("post", None, seed=1),
        result("post", None, seed=2),
        result("post", None, seed=3, status="failed"),
    ]
    assert said(FailedTrials, trials) == (
        "Title of post at learning rate 0.001: 2 of 4 seeds diverged, 1 of 4 seeds stalled, 1 of 4 seeds failed with an error."
    )
    assert said(StallRule, trials) == (
        "Stalled: the held-out loss is no better than that of the unigram baseline (perplexity 500.0)."
    )


def test_what_stalled_means_for_a_classifier() -> None:
    trials = [*classifiers("pre", [0.9, 0.9]), *classifiers("post", [0.1, 0.101], status="stalled")]
    assert said(StallRule, trials, "vision") == (
        "Stalled: the accuracy is no better than that of always predicting the most frequent class (10.00%), or reduces its error "
        "by less "
        "than 2%."
    )


def test_nothing_trained() -> None:
    assert said(NothingTrained, results("pre", [None, None])) == (
        "No trial trained: every one diverged, stalled or failed. Lower the learning rate, or train for more steps."
    )


def test_the_best_of_several_was_selected() -> None:
    trials = [*results("pre", [5.0, 5.01]), *results("post", [4.8, 4.81]), *results("lns", [4.9, 4.92])]
    assert said(UncorrectedSelection, trials) == (
        "The leader was selected among 3 placements, and the intervals are not corrected for multiple comparisons: if all "
        "placements were equal, the probability of at least one significant difference would exceed 5%."
    )


def test_the_command_to_run_next_is_complete() -> None:
    assert said(SingleLearningRate, CLEAR) == (
        "A single learning rate (0.001) does not rank placements: each has its own optimum, and the order may reverse at another. "
        "Add learning rates: `mixln compare --out 'runs/own words' --learning-rates 0.0003 0.001 0.003 --extend`."
    )
    assert said(FewSeeds, CLEAR) == (
        "3 seeds give wide intervals; add seeds: `mixln compare --out 'runs/own words' --seeds 0 1 2 3 4 --extend`."
    )
    assert said(FewSeeds, [result("pre", 3.0), result("post", 2.0)]).startswith("A single seed gives no interval; add")


def test_a_best_learning_rate_at_the_edge() -> None:
    bias = (
        "The best learning rate was selected on the held-out text and seeds that are reported, so every result is slightly "
        "optimistically biased."
    )
    assert said(TunedOnHeldOut, grid(1e-2)) == bias
    assert said(TunedOnHeldOut, grid(1e-3)) == (
        f"{bias} That of post is at the edge of the grid: a wider grid may contain a better one."
    )


def test_different_inits() -> None:
    trials = [*results("pre", [3.0, 3.1]), *results("hybrid*", [2.0, 2.1], init="megatron")]
    assert said(InitsDiffer, trials) == (
        "The placements have different initialisations (megatron: hybrid*; normal: pre), as their authors recommend; part of a "
        "difference "
        "may be due to the initialisation. Use --init to hold it fixed."
    )


def test_the_length_of_the_training() -> None:
    assert said(LengthCaveat, CLEAR) == (
        "Each trial was trained on 640 tokens in 10 steps. With longer training or a larger model the order may differ, as it "
        "does between "
        "published comparisons."
    )
    images = TrialLength(steps=300, amount=307_200, passes=2.5)
    assert length(images, "vision") == "307,200 images (2.5 passes) in 300 steps"
