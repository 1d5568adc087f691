"""The verdict says what the figures carry and no more."""

from __future__ import annotations

import pytest

from tests.compare.records import result, results, said


def sentence(sentences: tuple[str, ...], part: str) -> str:
    """The one sentence that holds `part`."""
    (found,) = [each for each in sentences if part in each]
    return found


def test_a_clear_win():
    found = said([*results("pre", [3.00, 3.01, 3.02]), *results("mix(0.25)", [2.90, 2.92, 2.91])])
    first = found[0]
    assert first.startswith("Title of mix(0.25) (mix(0.25)) has the lowest held-out perplexity, 18.4, at learning rate")
    assert "against the baseline Title of pre" in first
    assert "The 95% interval excludes zero" in first
    assert "more than the noise between seeds" in first
    assert not any("mix(0.25)) against Title of pre:" in each for each in found), "said twice"


def test_a_lead_that_is_not_resolved():
    found = said([*results("pre", [3.00, 3.10]), *results("post", [2.90, 3.15]), *results("lns", [2.95, 3.20])])
    assert "Title of post has the lowest held-out perplexity" in found[0]
    assert "The 95% interval includes zero: these seeds cannot tell it from the baseline." in found[0]
    assert sentence(found, "Title of lns against Title of pre:").endswith(": not resolved by these seeds.")


def test_a_second_placement_that_beats_the_baseline_is_judged_too():
    trials = [*results("pre", [3.00, 3.01]), *results("post", [2.50, 2.51]), *results("lns", [2.80, 2.81])]
    assert sentence(said(trials), "Title of lns against Title of pre:").endswith(": better than the baseline here.")


def test_the_baseline_wins_clearly():
    found = said([*results("pre", [2.90, 2.91, 2.92]), *results("post", [3.00, 3.02, 3.01])])
    assert found[0].startswith("The baseline Title of pre has the lowest held-out perplexity, 18.4")
    assert found[0].endswith("and the 95% interval of every other placement that trained excludes zero.")
    assert sentence(found, "Title of post against Title of pre:").endswith(": worse than the baseline here.")


def test_the_baseline_leads_without_being_separated():
    trials = [*results("pre", [3.0, 3.0]), *results("post", [3.0, 3.2]), *results("lns", [4.0, 4.001])]
    found = said(trials)
    assert found[0].endswith("but these seeds do not separate it from post.")
    assert "worse than the baseline here" in sentence(found, "Title of lns against Title of pre:")


def test_nothing_trained():
    trials = [*results("pre", [7.0, 7.1], status="stalled"), *results("post", [None, None])]
    found = said(trials)
    assert found[0] == (
        "No trial trained: every one diverged, stalled or failed. Lower the learning rate or give more steps."
    )
    assert not any("lowest" in each for each in found)


def test_what_broke_is_counted_by_placement_and_learning_rate():
    trials = [
        *results("pre", [3.0, 3.0, 3.0, 3.0]),
        result("post", 7.0, seed=0, status="stalled"),
        result("post", None, seed=1),
        result("post", None, seed=2),
        result("post", None, seed=3, status="failed"),
    ]
    found = said(trials)
    assert (
        "Title of post at learning rate 0.001: 2 of 4 diverged, 1 of 4 stalled, 1 of 4 failed with an error." in found
    )
    assert "Stalled means: no better than word frequencies alone (unigram perplexity 500.0)." in found
    assert not any("Title of pre at learning rate" in each for each in found)


def test_no_word_about_stalling_where_nothing_stalled():
    assert not any("Stalled" in each for each in said([*results("pre", [3.0, 3.1]), *results("post", [None, 3.0])]))


def test_a_placement_without_a_loss_is_not_compared():
    found = said([*results("pre", [3.0, 3.1]), *results("post", [None, None])])
    assert "Title of post has no held-out perplexity to compare with Title of pre." in found


def test_one_seed_supports_no_claim():
    found = said([result("pre", 3.0), result("post", 2.0)])
    assert "Title of post has the lowest held-out perplexity, 7.4," in found[0]
    assert found[0].endswith("With one seed there is no interval, and this supports no claim.")
    assert "(n = 1, no interval)" in sentence(found, "Title of post against Title of pre:")
    assert not any("better than" in each or "worse than" in each for each in found)


def test_one_learning_rate_proves_nothing():
    found = said([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    assert "proves nothing about placements" in sentence(found, "One learning rate (0.001)")
    assert "--learning-rates" in sentence(found, "One learning rate (0.001)")


def grid(best_post: float):
    """Pre-LN at its best in the middle of three rates, Post-LN at `best_post`."""
    losses = {1e-3: 3.1, 1e-2: 3.0, 1e-1: 3.2}
    trials = []
    for rate, loss in losses.items():
        trials += results("pre", [loss, loss + 0.01, loss], rate=rate)
        own = 2.8 if rate == best_post else 3.5
        trials += results("post", [own, own + 0.02, own], rate=rate)
    return trials


@pytest.mark.parametrize("edge", [1e-3, 1e-1])
def test_a_best_learning_rate_at_the_edge_is_said(edge):
    found = said(grid(edge))
    assert "each at its best learning rate" in found[0]
    limit = sentence(found, "flatters every placement a little")
    assert "It lies at the edge of the grid for post: a wider grid may find a better one." in limit
    against = sentence(found, "Title of post against Title of pre:")
    assert "in perplexity at its best learning rate" in against
    assert "at the common learning rate" in against


def test_a_best_learning_rate_inside_the_grid_needs_no_warning():
    found = said(grid(1e-2))
    assert "edge of the grid" not in sentence(found, "flatters every placement a little")
    assert not any("One learning rate" in each for each in found)


def test_different_inits_are_said():
    found = said([*results("pre", [3.0, 3.1]), *results("hybrid*", [2.0, 2.1], init="megatron")])
    assert (
        "The placements do not share their initialisation (megatron: hybrid*; normal: pre), as their authors recommend; "
        "part of a difference may be the initialisation. Hold it fixed with --init." in found
    )
    same = said([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    assert not any("initialisation" in each for each in same)


@pytest.mark.parametrize(("seeds", "warned"), [(1, False), (2, True), (4, True), (5, False)])
def test_few_seeds_are_said_to_be_few(seeds, warned):
    found = said([*results("pre", [3.0 + 0.1 * seed for seed in range(seeds)]), *results("post", [2.0] * seeds)])
    assert any(f"{seeds} seeds make wide intervals" in each for each in found) == warned


def test_the_length_of_the_training_is_always_said():
    found = said([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    assert (
        "640 tokens in 10 steps. A longer training or a larger model can order the placements differently" in found[-1]
    )


def test_a_single_pair_among_several_seeds_is_not_said_to_have_an_interval():
    first = said([*results("pre", [3.0, None]), *results("post", [2.5, 2.6])])[0]
    assert "no interval" in first
    assert "interval includes zero" not in first


def test_a_placement_that_loses_at_every_shared_seed_does_not_win():
    first = said([*results("pre", [3.0, 3.2]), *results("post", [3.05, None])])[0]
    assert not first.startswith("Title of post has the lowest held-out perplexity")


def test_a_baseline_that_alone_trained_is_not_said_to_be_separated():
    first = said([*results("pre", [3.0, 3.1]), *results("post", [None, None])])[0]
    assert "Title of pre has the lowest held-out perplexity" in first
    assert "excludes zero" not in first


def test_survivors_do_not_beat_a_placement_that_trained_at_every_seed():
    found = said([*results("pre", [5.0, 5.01, 5.02]), *results("post", [4.9, None, 4.91])])
    assert found[0].startswith(
        "The baseline Title of pre has the lowest held-out perplexity of the placements that trained at 3 of 3"
    )
    assert "excludes zero" not in found[0]
    assert sentence(found, "Title of post against").endswith("over the 2 of 3 seeds at which both have one.")


@pytest.mark.parametrize(
    ("losses", "judged"),
    [([4.81, 4.80, 4.82], "these seeds do not separate the two"), ([4.9, 4.91, 4.92], "behind it")],
)
def test_the_winner_is_compared_with_the_next(losses, judged):
    found = said(
        [*results("pre", [5.0, 5.01, 5.02]), *results("mix(0.25)", [4.80, 4.81, 4.80]), *results("lns", losses)]
    )
    assert judged in sentence(found, "The next, Title of lns")


def test_a_baseline_that_did_not_train_is_no_opponent():
    stalled = results("pre", [6.0, 6.01], status="stalled")
    first = said([*stalled, *results("post", [4.0, 4.01])])[0]
    assert "The baseline did not train at any seed" in first
    assert "excludes zero" not in first


def test_the_best_of_several_is_said_to_be_picked():
    grid = [*results("pre", [5.0, 5.01]), *results("post", [4.8, 4.81]), *results("lns", [4.9, 4.92])]
    assert any("picked as the best of 3" in each for each in said(grid))
    assert not any("picked as" in each for each in said(grid[:4]))


def test_a_placement_that_stalled_at_some_seeds_is_compared_where_it_trained():
    post = [result("post", 2.5), result("post", 6.2, seed=1, status="stalled")]
    found = said([*results("pre", [3.0, 3.2]), *results("lns", [2.9, 3.1]), *post])
    against = sentence(found, "Title of post against")
    assert against.endswith(
        "over the 1 of 2 seeds at which both trained; Title of post stalled at 1, Title of pre at 0."
    )
    assert "−39.3%" in against
    assert not any("+" in each and "post" in each for each in found)


def test_the_next_command_is_whole_and_names_the_folder():
    found = said([*results("pre", [3.0, 3.1]), *results("post", [2.0, 2.1])])
    commands = [each.split("`")[1] for each in found if "`" in each]
    assert commands == [
        "mixln compare --out 'runs/own words' --learning-rates 0.0003 0.001 0.003 --extend",
        "mixln compare --out 'runs/own words' --seeds 0 1 2 3 4 --extend",
    ]
