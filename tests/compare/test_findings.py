"""The findings of a comparison say what its numbers support, and no more."""

from __future__ import annotations

import json
import math

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
from mixln.records import to_json
from tests.compare.records import OUT, against, all_of, found, one, result, results
from tests.compare.test_metrics import classifiers


def lead(every) -> tuple[str, str]:
    """The leading placement, and the judgement on it; it comes first."""
    assert isinstance(every[0], Leader)
    return every[0].leader.subject.placement, every[0].judgement


def test_a_clear_win():
    every = found([*results("pre", [3.00, 3.01, 3.02]), *results("mix(0.25)", [2.90, 2.92, 2.91])])
    assert lead(every) == ("mix(0.25)", "significant")
    leader = one(every, Leader)
    assert (leader.baseline.placement, leader.leader.subject.title) == ("pre", "Title of mix(0.25)")
    assert leader.leader.value == pytest.approx(2.91)
    assert leader.interval is not None
    assert leader.interval.mean == pytest.approx(-0.1)
    assert all_of(every, AgainstBaseline) == [], "said twice"


def test_a_lead_that_is_not_resolved():
    every = found([*results("pre", [3.00, 3.10]), *results("post", [2.90, 3.15]), *results("lns", [2.95, 3.20])])
    assert lead(every) == ("post", "not-significant")
    assert against(every, "lns").judgement == "not-significant"


def test_a_second_placement_that_beats_the_baseline_is_judged_too():
    trials = [*results("pre", [3.00, 3.01]), *results("post", [2.50, 2.51]), *results("lns", [2.80, 2.81])]
    assert against(found(trials), "lns").judgement == "better"


def test_the_baseline_wins_clearly():
    every = found([*results("pre", [2.90, 2.91, 2.92]), *results("post", [3.00, 3.02, 3.01])])
    assert lead(every) == ("pre", "separated-from-all")
    assert one(every, Leader).interval is None
    assert against(every, "post").judgement == "worse"


def test_the_baseline_leads_without_being_separated():
    every = found([*results("pre", [3.0, 3.0]), *results("post", [3.0, 3.2]), *results("lns", [4.0, 4.001])])
    assert lead(every) == ("pre", "not-separated")
    assert [subject.placement for subject in one(every, Leader).unseparated] == ["post"]
    assert against(every, "lns").judgement == "worse"


def test_nothing_trained():
    every = found([*results("pre", [7.0, 7.1], status="stalled"), *results("post", [None, None])])
    assert every[0] == NothingTrained()
    assert all_of(every, Leader) == all_of(every, AgainstBaseline) == []


def test_what_broke_is_counted_by_placement_and_learning_rate():
    trials = [
        *results("pre", [3.0, 3.0, 3.0, 3.0]),
        result("post", 7.0, seed=0, status="stalled"),
        result("post", None, seed=1),
        result("post", None, seed=2),
        result("post", None, seed=3, status="failed"),
    ]
    every = found(trials)
    failed = one(every, FailedTrials)
    assert (failed.subject.placement, failed.learning_rate, failed.seeds) == ("post", 1e-3, 4)
    assert (failed.diverged, failed.stalled, failed.failed) == (2, 1, 1)
    assert one(every, StallRule).value == pytest.approx(math.log(500))


def test_no_rule_of_stalling_where_nothing_stalled():
    assert all_of(found([*results("pre", [3.0, 3.1]), *results("post", [None, 3.0])]), StallRule) == []


def test_a_placement_without_a_loss_is_not_compared():
    every = found([*results("pre", [3.0, 3.1]), *results("post", [None, None])])
    assert (against(every, "post").judgement, against(every, "post").interval) == ("no-value", None)


def test_one_seed_supports_no_claim():
    every = found([result("pre", 3.0), result("post", 2.0)])
    assert lead(every) == ("post", "single-seed")
    post = against(every, "post")
    assert (post.judgement, post.interval.pairs, post.interval.low) == ("single-pair", 1, None)


def test_one_learning_rate_proves_nothing():
    every = found([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    single = one(every, SingleLearningRate)
    assert (single.learning_rate, single.proposed, single.folder) == (1e-3, (3e-4, 1e-3, 3e-3), str(OUT))


def grid(best_post: float):
    """Pre-LN at its best in the middle of three rates, Post-LN at `best_post`."""
    losses = {1e-3: 3.1, 1e-2: 3.0, 1e-1: 3.2}
    trials = []
    for rate, loss in losses.items():
        trials += results("pre", [loss, loss + 0.01, loss], rate=rate)
        own = 2.8 if rate == best_post else 3.5
        trials += results("post", [own, own + 0.02, own], rate=rate)
    return trials


@pytest.mark.parametrize(("edge", "at_common"), [(1e-3, -0.3), (1e-1, -0.4)])
def test_a_best_learning_rate_at_the_edge_is_said(edge, at_common):
    every = found(grid(edge))
    assert one(every, Leader).tuned
    assert [subject.placement for subject in one(every, TunedOnHeldOut).at_edge] == ["post"]
    post = against(every, "post")
    assert post.tuned
    assert post.interval.mean == pytest.approx(-0.2 + 0.01 / 3)
    assert (post.common.mean, post.common_rate) == (pytest.approx(at_common + 0.01 / 3), edge)


def test_a_best_learning_rate_inside_the_grid_needs_no_warning():
    every = found(grid(1e-2))
    assert one(every, TunedOnHeldOut).at_edge == ()
    assert all_of(every, SingleLearningRate) == []


def test_different_inits_are_said():
    every = found([*results("pre", [3.0, 3.1]), *results("hybrid*", [2.0, 2.1], init="megatron")])
    assert one(every, InitsDiffer).inits == {"megatron": ("hybrid*",), "normal": ("pre",)}
    assert all_of(found([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])]), InitsDiffer) == []


@pytest.mark.parametrize(("seeds", "few"), [(1, True), (2, True), (4, True), (5, False)])
def test_few_seeds_are_said_to_be_few(seeds, few):
    every = found([*results("pre", [3.0 + 0.1 * seed for seed in range(seeds)]), *results("post", [2.0] * seeds)])
    proposals = [(each.seeds, each.proposed, each.folder) for each in all_of(every, FewSeeds)]
    assert proposals == ([(seeds, (0, 1, 2, 3, 4), str(OUT))] if few else [])


def test_seeds_are_added_to_those_there_are():
    every = found([result("pre", 3.0, seed=7), result("pre", 3.1, seed=1)])
    assert one(every, FewSeeds).proposed == (1, 7, 0, 2, 3)


def test_the_length_of_the_training_comes_last():
    every = found([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    assert every[-1] == LengthCaveat(length=TrialLength(steps=10, amount=640))


def test_a_single_pair_among_several_seeds_has_no_interval():
    every = found([*results("pre", [3.0, None]), *results("post", [2.5, 2.6])])
    assert lead(every) == ("post", "single-pair")


def test_a_placement_that_loses_at_every_shared_seed_does_not_win():
    assert lead(found([*results("pre", [3.0, 3.2]), *results("post", [3.05, None])]))[0] == "pre"


def test_a_baseline_that_alone_trained_is_not_said_to_be_separated():
    assert lead(found([*results("pre", [3.0, 3.1]), *results("post", [None, None])])) == ("pre", "no-rival")


def test_a_leader_without_a_common_seed():
    trials = [
        result("pre", None, seed=0),
        result("pre", 3.0, seed=1),
        result("post", 2.9, seed=0),
        result("post", 2.8, seed=2),
    ]
    assert lead(found(trials)) == ("post", "no-common-seed")


def test_survivors_do_not_beat_a_placement_that_trained_at_every_seed():
    every = found([*results("pre", [5.0, 5.01, 5.02]), *results("post", [4.9, None, 4.91])])
    assert lead(every) == ("pre", "not-separated")
    leader = one(every, Leader)
    assert (leader.of_survivors, leader.leader.finished, leader.leader.seeds) == (True, 3, 3)
    post = against(every, "post")
    assert (post.judgement, post.interval.pairs, post.seeds) == ("missing-pairs", 2, 3)


@pytest.mark.parametrize(("losses", "judged"), [([4.81, 4.80, 4.82], "not-significant"), ([4.9, 4.91, 4.92], "behind")])
def test_the_winner_is_compared_with_the_next(losses, judged):
    every = found(
        [*results("pre", [5.0, 5.01, 5.02]), *results("mix(0.25)", [4.80, 4.81, 4.80]), *results("lns", losses)]
    )
    second = one(every, RunnerUp)
    assert (second.runner_up.subject.placement, second.leader.placement, second.judgement) == (
        "lns",
        "mix(0.25)",
        judged,
    )


def test_a_baseline_that_did_not_train_is_no_opponent():
    stalled = results("pre", [6.0, 6.01], status="stalled")
    assert lead(found([*stalled, *results("post", [4.0, 4.01])])) == ("post", "baseline-untrained")


def test_a_placement_that_stalled_everywhere_is_no_opponent_of_the_baseline():
    every = found([*results("pre", [4.0, 4.01]), *results("post", [6.0, 6.01], status="stalled")])
    assert (against(every, "post").judgement, against(every, "post").stalled) == ("untrained", 2)


def test_the_best_of_several_is_said_to_be_picked():
    grid = [*results("pre", [5.0, 5.01]), *results("post", [4.8, 4.81]), *results("lns", [4.9, 4.92])]
    assert one(found(grid), UncorrectedSelection).placements == 3
    assert all_of(found(grid[:4]), UncorrectedSelection) == []


def test_a_placement_that_stalled_at_some_seeds_is_compared_where_it_trained():
    post = [result("post", 2.5), result("post", 6.2, seed=1, status="stalled")]
    every = found([*results("pre", [3.0, 3.2]), *results("lns", [2.9, 3.1]), *post])
    finding = against(every, "post")
    assert (finding.judgement, finding.interval.pairs, finding.seeds) == ("some-stalled", 1, 2)
    assert (finding.stalled, finding.baseline_stalled) == (1, 0)
    assert finding.interval.mean == pytest.approx(-0.5)


def test_the_highest_accuracy_wins_whatever_the_loss():
    every = found([*classifiers("pre", [0.90, 0.901]), *classifiers("mix(0.25)", [0.95, 0.9512])], task="vision")
    assert lead(every) == ("mix(0.25)", "significant")
    assert one(every, Leader).leader.value == pytest.approx(0.9506)


def test_worse_is_a_lower_accuracy():
    trials = [
        *classifiers("pre", [0.95, 0.951]),
        *classifiers("post", [0.90, 0.902]),
        *classifiers("lns", [0.94, 0.96]),
    ]
    every = found(trials, task="vision")
    assert lead(every) == ("pre", "not-separated")
    assert [subject.placement for subject in one(every, Leader).unseparated] == ["lns"]
    assert against(every, "post").judgement == "worse"


def test_the_second_accuracy_is_behind_the_first():
    trials = [
        *classifiers("pre", [0.8, 0.81]),
        *classifiers("post", [0.9, 0.901]),
        *classifiers("lns", [0.95, 0.9512]),
    ]
    second = one(found(trials, task="vision"), RunnerUp)
    assert (second.runner_up.subject.placement, second.judgement) == ("post", "behind")
    assert second.interval.mean == pytest.approx(-0.0501)


def test_equal_differences_are_no_certainty():
    """Of few held-out images, two seeds can differ by exactly one image each."""
    every = found([*classifiers("pre", [0.5, 0.75]), *classifiers("post", [0.625, 0.875])], task="vision")
    assert lead(every) == ("post", "identical-differences")
    every = found([*classifiers("pre", [0.625, 0.875]), *classifiers("post", [0.5, 0.75])], task="vision")
    assert lead(every) == ("pre", "not-separated")
    assert against(every, "post").judgement == "not-significant"


def test_the_floor_of_accuracy_is_its_share():
    every = found(
        [*classifiers("pre", [0.9, 0.9]), *classifiers("post", [0.1, 0.101], status="stalled")], task="vision"
    )
    assert one(every, StallRule).value == 0.1


def test_findings_are_plain_data():
    every = found(grid(1e-3))
    stored = json.loads(json.dumps([{"kind": finding.kind, **to_json(finding)} for finding in every]))
    kinds = [entry["kind"] for entry in stored]
    assert kinds[:2] == ["leader", "against-baseline"]
    assert {"tuned-on-held-out", "few-seeds", "length-caveat"} <= set(kinds)
    assert stored[0]["leader"]["subject"] == {"placement": "post", "title": "Title of post"}
