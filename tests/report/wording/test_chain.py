"""The sentences on a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixln.compare.chain_findings import (
    ChainInterrupted,
    IdenticalAccuracy,
    JudgesAtChance,
    PlacementsAtChance,
    RewardDifference,
    RewardHacking,
    RewardModelDiverged,
    SharedJudge,
    SingleChainSeed,
    StalledBefore,
    TaskDifference,
    chain_findings,
)
from mixln.compare.findings import Subject
from mixln.compare.results import Interruption, Interval
from mixln.findings import Finding
from mixln.report.wording.chain import interruption, notes, sentence
from mixln.runs.trials import Trial
from tests.compare.chains import chained, ended

PRE, POST = Subject(placement="pre", title="Pre-LN"), Subject(placement="post", title="Post-LN")
TRIAL = Trial(placement="post", init="normal", learning_rate=1e-3, seed=1)
CLEAR = Interval(mean=0.1, low=0.02, high=0.18, pairs=3)


def difference(interval: Interval) -> TaskDifference:
    return TaskDifference(subject=POST, baseline=PRE, interval=interval)


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (
            difference(CLEAR),
            "Post-LN against Pre-LN, mean task accuracy: +10.00 points [+2.00, +18.00], significant (the interval excludes zero).",
        ),
        (
            difference(replace(CLEAR, low=-0.0242, high=0.2242)),
            "Post-LN against Pre-LN, mean task accuracy: +10.00 points [−2.42, +22.42], not significant over these seeds.",
        ),
        (
            difference(Interval(mean=0.1, low=None, high=None, pairs=1)),
            "Post-LN against Pre-LN, mean task accuracy: +10.00 points (n = 1, no interval, no claim).",
        ),
        (
            difference(Interval(mean=0.32, low=0.32, high=0.32, pairs=3)),
            "Post-LN against Pre-LN, mean task accuracy: +32.00 points (identical at every seed: no interval, no claim).",
        ),
        (
            RewardDifference(subject=POST, baseline=PRE, interval=Interval(mean=2.0, low=0.5, high=3.5, pairs=3)),
            "Post-LN against Pre-LN, final reward: +2.00 [+0.500, +3.50], significant (the interval excludes zero).",
        ),
        (
            PlacementsAtChance(subjects=(PRE, POST), chance=0.25),
            "The mean task accuracy of Pre-LN, Post-LN is not significantly above chance level (25.0%): differences between "
            "models at "
            "chance level are not evidence about their layers.",
        ),
        (
            IdenticalAccuracy(accuracies=((PRE, "a"), (POST, "b"))),
            "All seeds of Pre-LN (a), Post-LN (b) have exactly the same accuracy, which is typical of models that give the same "
            "answer to every question; the interval over seeds then has zero width and understates the error.",
        ),
        (SingleChainSeed(), "With a single seed there is no confidence interval, and no claim can be made."),
        (
            RewardHacking(trials=(TRIAL,)),
            "The reward of post, lr 0.001, seed 1 rose while the policy itself ranked fewer held-out pairs correctly: a sign of "
            "reward "
            "hacking (over-optimisation of the reward model).",
        ),
        (
            SharedJudge(baseline=PRE),
            "All placements of a seed were scored by the same reward model, that of Pre-LN, because rewards of different reward "
            "models are not on the same scale. For the same reason, only paired differences are comparable across seeds.",
        ),
        (
            JudgesAtChance(judges=((0, 0.52, 0.03), (1, 0.5, 0.03))),
            "The reward model of seed 0 (52.0 ± 3.0% correct), seed 1 (50.0 ± 3.0% correct) is not significantly above chance "
            "level on held-out pairs of chosen and rejected answers, so its rewards are not informative.",
        ),
        (
            StalledBefore(trials=(TRIAL,)),
            "Stalled in pre-training, but trained in all later steps: post, lr 0.001, seed 1.",
        ),
        (
            RewardModelDiverged(trial=TRIAL, step=1070),
            "Post, lr 0.001, seed 1: its own reward model diverged at step 1,070.",
        ),
        (
            ChainInterrupted(trial=TRIAL, interruption=Interruption(kind="pretraining", status="diverged")),
            "Post, lr 0.001, seed 1: pre-training diverged.",
        ),
    ],
)
def test_each_finding_has_its_sentence(finding: Finding, text: str) -> None:
    assert sentence(finding) == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Interruption(kind="pretraining", status="failed"), "pre-training failed"),
        (
            Interruption(kind="no-reward-model", step="rlhf"),
            "rlhf: the baseline has no reward model for this seed, and all placements are scored with it",
        ),
        (Interruption(kind="divergence", step="finetune", optimizer_step=1234), "finetune diverged at step 1,234"),
        (
            Interruption(kind="divergence", step="finetune", optimizer_step=3, reason="the loss is not finite"),
            "finetune diverged at step 3: the loss is not finite",
        ),
        (Interruption(kind="error", reason="out of memory"), "out of memory"),
    ],
)
def test_why_a_chain_ended_early(found: Interruption, text: str) -> None:
    assert interruption(found) == text


def test_notes_are_the_sentences_of_all_findings() -> None:
    compared = chained([ended("pre", 0, {"a": 0.5}), ended("post", 0, {"a": 0.6})], tasks=("a",), limit=100)
    assert notes(compared) == tuple(map(sentence, chain_findings(compared)))
    assert (
        "Only the first 100 questions of each task were evaluated (--evaluate.limit): scores are not comparable with published "
        "ones." in notes(compared)
    )
