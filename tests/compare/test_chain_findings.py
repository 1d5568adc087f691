"""The statistics of chains, and what they show."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

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
from mixln.compare.results import AVERAGE, Interruption
from mixln.evaluation.findings import LimitedQuestions
from mixln.runs.outcome import ValueWithError
from tests.compare.chains import chained, ended, interrupted, tuned
from tests.compare.records import all_of, one, summary
from tests.compare.records import result as trial_result


def test_means_and_paired_differences_over_seeds():
    pre = [{"a": 0.2, "b": 0.4}, {"a": 0.3, "b": 0.3}, {"a": 0.25, "b": 0.45}]
    post = [{"a": 0.3, "b": 0.5}, {"a": 0.5, "b": 0.4}, {"a": 0.35, "b": 0.45}]
    every = [ended("pre", seed, values, reward=2.0, accuracy=0.9) for seed, values in enumerate(pre)]
    every += [ended("post", seed, values, reward=3.0 + seed, accuracy=0.9) for seed, values in enumerate(post)]
    compared = chained(every, tasks=("a", "b"))
    first, second = compared.chain.rows
    assert first.figures["a"].value == pytest.approx(0.25)
    assert first.figures[AVERAGE].difference is None
    differences = [0.1, 0.15, 0.05]
    average = second.figures[AVERAGE]
    assert average.difference.mean == pytest.approx(0.1)
    reach = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    assert average.difference.high == pytest.approx(sum(differences) / 3 + reach)
    assert second.figures["rlhf reward"].difference.mean == pytest.approx(2.0)
    assert compared.chain.chance == {"a": 0.25, "b": 0.25, AVERAGE: 0.25}
    found = chain_findings(compared)
    difference = one(found, TaskDifference)
    assert (difference.subject.placement, difference.baseline.placement) == ("post", "pre")
    assert difference.interval == average.difference
    assert one(found, RewardDifference).interval == second.figures["rlhf reward"].difference
    assert len(one(found, RewardHacking).trials) == 6  # reward 1 → 2, accuracy 1 → 0.9
    assert one(found, SharedJudge).baseline.title == "Title of pre"


def test_a_comparison_without_a_chain_has_no_findings_of_one():
    assert chain_findings(summary([trial_result("pre", 3.0)])) == ()


def test_an_interrupted_trial_is_left_out_and_reported():
    every = [ended("pre", seed, {"a": 0.5}) for seed in (0, 1)] + [ended("post", 0, {"a": 0.6}), interrupted("post", 1)]
    compared = chained(every, tasks=("a",))
    assert compared.chain.rows[1].figures["a"].seeds == 1
    assert compared.chain.rows[1].figures["a"].difference.low is None
    found = chain_findings(compared)
    lost = one(found, ChainInterrupted)
    assert (lost.trial.placement, lost.trial.seed) == ("post", 1)
    assert lost.interruption == Interruption(kind="pretraining", status="diverged")
    assert one(found, TaskDifference).interval.low is None


def test_chance_and_identical_seeds_and_stalled_trials_are_reported():
    """Models at chance level, models that give one answer to all questions, judges at chance level, and trials that stalled."""
    judge = replace(tuned(), after={"accuracy": ValueWithError(value=0.52, error=0.03)})
    every = [
        replace(ended("pre", seed, {"a": 0.2, "b": 0.2 + seed / 100}, reward=2.0), reward=judge, judge="pre")
        for seed in (0, 1)
    ]
    every += [
        replace(ended("post", seed, {"a": 0.8 + seed / 100, "b": 0.9}, reward=2.0), reward=judge) for seed in (0, 1)
    ]
    compared = chained(every, tasks=("a", "b"))
    stalled = replace(compared.trials[1], status="stalled")
    assert stalled.trial == every[1].trial
    found = chain_findings(replace(compared, trials=(compared.trials[0], stalled, *compared.trials[2:])))
    blind = one(found, PlacementsAtChance)
    assert ([subject.placement for subject in blind.subjects], blind.chance) == (["pre"], 0.25)
    same = one(found, IdenticalAccuracy).accuracies
    assert [(subject.placement, task) for subject, task in same] == [("pre", "a"), ("post", "b")]
    assert one(found, JudgesAtChance).judges == ((0, 0.52, 0.03), (1, 0.52, 0.03))
    assert one(found, StalledBefore).trials == (every[1].trial,)
    assert all_of(chain_findings(compared), StalledBefore) == []


def test_seeds_that_agree_give_no_interval():
    """0.1 + 0.1 + 0.1 is not 3 · 0.1: equal seeds must not come to an interval of rounding errors."""
    every = [ended("pre", seed, {"a": 0.1}) for seed in (0, 1, 2)] + [ended("post", s, {"a": 0.42}) for s in (0, 1, 2)]
    found = chain_findings(chained(every, tasks=("a",)))
    same = one(found, IdenticalAccuracy).accuracies
    assert [(subject.placement, task) for subject, task in same] == [("pre", "a"), ("post", "a")]
    interval = one(found, TaskDifference).interval
    assert interval.pointlike
    assert not interval.excludes_zero


def test_one_seed_and_a_limit_of_questions_are_reported():
    compared = chained([ended("pre", 0, {"a": 0.5}), ended("post", 0, {"a": 0.6})], tasks=("a",), limit=100)
    found = chain_findings(compared)
    assert one(found, SingleChainSeed)
    assert one(found, LimitedQuestions).limit == 100
    two = [ended("pre", seed, {"a": 0.5 + seed / 10}) for seed in (0, 1)]
    found = chain_findings(chained(two, tasks=("a",)))
    assert all_of(found, SingleChainSeed) == all_of(found, LimitedQuestions) == []


def test_a_seed_that_diverged_has_no_part_in_the_reward_before():
    lost = replace(tuned(), before={"reward": ValueWithError(value=1.0), "accuracy": ValueWithError(value=1.0)})
    every = [ended("pre", 0, {}, reward=0.5, accuracy=0.9), replace(ended("pre", 1, {}), rlhf=lost)]
    compared = chained(every)
    assert compared.chain.rows[0].figures["rlhf reward before"].seeds == 1
    assert all_of(chain_findings(compared), RewardHacking) == []


def test_a_reward_model_that_diverged_is_reported():
    broken = replace(tuned(), status="diverged", step=7)
    every = [ended("pre", 0, {}), replace(ended("pre", 1, {}), reward=broken)]
    found = one(chain_findings(chained(every)), RewardModelDiverged)
    assert (found.trial.seed, found.step) == (1, 7)
