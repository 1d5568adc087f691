"""Verdicts on orderings, on trials whose losses are known."""

from __future__ import annotations

import dataclasses
import math

import pytest

from mixln.recipes.outcome import effect, measured, ordering_result
from mixln.recipes.quantities import QUANTITIES, Evidence
from mixln.recipes.records import Ordering, Recipe, row
from mixln.recipes.results import DeviationStudy, Reproduction, SweepPoint, TrainedRun, VariantResult
from mixln.report.markdown import outcome as markdown_outcome
from mixln.report.tables.reproduction import changes_beside, differences_beside, numbers_beside
from mixln.report.wording import reproduction as words
from mixln.report.writing import write_reproduction
from mixln.runs.profile import LayerProfile
from mixln.runs.trials import Trial, TrialResult
from tests.report import diagnosis_samples as samples

CLAIM = Ordering(quantity="perplexity", ahead=("A", "mix"), behind=("A", "pre"))
RECIPE = Recipe(
    title="A table", source="A paper", reading="As it stands.", scaled="everything", minutes=1,
    published={"perplexity": row("A", {"pre": 20.0, "mix": 19.0})},
)  # fmt: skip

RUN = TrainedRun(
    run="A", model="tiny", placements=("pre", "mix"), learning_rates=(1e-3,), seeds=(0, 1, 2), init="normal", batch_size=4, steps=10,
    sequence_length=16,
)  # fmt: skip


def trial(loss, seed=0, status="finished", **more):
    return TrialResult(
        trial=Trial(placement="mix", init="normal", learning_rate=1e-3, seed=seed), status=status, reason="", step=1, tokens=1, loss=loss,
        bits_per_byte=None, tokens_per_second=None, seconds=1.0, **more,
    )  # fmt: skip


def seeds(*losses, status="finished"):
    return {seed: Evidence(result=trial(loss, seed, status)) for seed, loss in enumerate(losses)}


@pytest.mark.parametrize(
    ("mix", "pre", "expected"),
    [
        (seeds(2.0, 2.1, 2.05), seeds(3.0, 3.2, 3.05), "held"),
        (seeds(3.0, 3.2, 3.05), seeds(2.0, 2.1, 2.05), "reversed"),
        (seeds(2.0, 3.1, 2.5), seeds(2.4, 2.6, 2.5), "undecided"),
        (seeds(2.0), seeds(3.0), "single-seed"),
        (seeds(2.0, 2.1), {}, "not-measured"),
        (seeds(2.0, 2.1), seeds(None, None, status="diverged"), "held"),
        (seeds(7.0, 7.0, status="stalled"), seeds(2.0, 2.1), "reversed"),
        (seeds(None, status="diverged"), seeds(None, status="diverged"), "undecided"),
        (seeds(2.0, 2.1, 2.05), {**seeds(3.0, 3.1, 3.0), 2: Evidence(result=trial(7.0, 2, "stalled"))}, "undecided"),
        (seeds(2.0), seeds(7.0, status="stalled"), "undecided"),
    ],
)
def test_verdicts(mix, pre, expected):
    found = ordering_result(CLAIM, RECIPE, {("A", "mix"): mix, ("A", "pre"): pre})
    assert found.verdict == expected
    assert found.published == (19.0, 20.0)


def test_models_at_chance_level_decide_nothing():
    """As far above each other as seeds can tell, and both below a chance level of a quarter; then one of them above it."""

    def answered(*shares):
        return {
            seed: Evidence(result=trial(2.0, seed), figures={"average": share}, chance={"average": 0.25})
            for seed, share in enumerate(shares)
        }

    claim = dataclasses.replace(CLAIM, quantity="mean-task-accuracy")
    low, lower, high = answered(0.24, 0.242, 0.241), answered(0.22, 0.221, 0.222), answered(0.34, 0.343, 0.341)
    for mix, pre, expected in ((low, lower, "at-chance"), (high, lower, "held"), (lower, high, "reversed")):
        assert ordering_result(claim, RECIPE, {("A", "mix"): mix, ("A", "pre"): pre}).verdict == expected


def test_where_more_is_better():
    claim = Ordering(quantity="final-reward", ahead=("A", "mix"), behind=("A", "pre"))
    rewards = {
        ("A", "mix"): {seed: Evidence(figures={"rlhf reward": 1.0 + seed / 100}) for seed in range(3)},
        ("A", "pre"): {seed: Evidence(figures={"rlhf reward": 0.5}) for seed in range(3)},
    }
    assert ordering_result(claim, RECIPE, rewards).verdict == "held"


def test_layers_of_a_model_that_did_not_train_say_nothing():
    """Two of three seeds are left, and decide; with one of them there is nothing to tell noise from."""
    claim = Ordering(quantity="deep-angle", ahead=("A", "mix"), behind=("A", "pre"))

    def measured_layers(*turns, stalled=()):
        return {
            seed: Evidence(
                result=trial(2.0, seed, "stalled" if seed in stalled else "finished"), diagnosis=diagnosis(turn)
            )
            for seed, turn in enumerate(turns)
        }

    pre = measured_layers(0.100, 0.101, 0.102)
    found = ordering_result(
        claim, RECIPE, {("A", "mix"): measured_layers(0.2, 0.203, 0.0, stalled=(2,)), ("A", "pre"): pre}
    )
    assert (found.verdict, found.difference.pairs) == ("held", 2)
    assert found.difference.mean == pytest.approx(0.101)
    found = ordering_result(
        claim,
        RECIPE,
        {("A", "mix"): {**measured_layers(0.2, 0.203), 2: Evidence(result=trial(2.0, 2))}, ("A", "pre"): pre},
    )
    assert (found.verdict, found.difference.pairs) == ("undecided", 2)  # one that trained could not be diagnosed
    found = ordering_result(
        claim, RECIPE, {("A", "mix"): measured_layers(0.2, 0.0, 0.0, stalled=(1, 2)), ("A", "pre"): pre}
    )
    assert (found.verdict, found.difference.pairs) == ("single-seed", 1)


def diagnosis(turn):
    """Of a model whose layers turn the stream alike."""
    rows = tuple((turn,) * (6 - layer) for layer in range(6))
    return dataclasses.replace(samples.minimal("model", 6), angular=samples.angular(rows))


def test_what_a_deviation_changes_is_paired_by_seed():
    """Each seed's difference shrinks by 0.5, but for a thousandth; the seeds themselves are far apart."""
    plain = {("A", "mix"): seeds(2.0, 3.0, 4.0), ("A", "pre"): seeds(3.0, 4.2, 4.9)}
    varied = {("A", "mix"): seeds(5.0, 2.0, 3.0), ("A", "pre"): seeds(5.501, 2.7, 3.399)}
    found = effect(CLAIM, RECIPE, plain, varied)
    assert found.ordering.difference.mean == pytest.approx(-(0.501 + 0.7 + 0.399) / 3)
    assert found.change.mean == pytest.approx(0.5)
    reach = 4.302653 * 0.001 / math.sqrt(3)  # t for two degrees of freedom; the changes are 0.499, 0.500, 0.501
    assert (found.change.low, found.change.high) == (pytest.approx(0.5 - reach), pytest.approx(0.5 + reach))


def test_a_seed_that_diverged_is_seen_beside_those_that_trained():
    plain = {("A", "mix"): seeds(2.0, 2.1), ("A", "pre"): seeds(None, None, status="diverged")}
    one = {0: seeds(2.5)[0], 1: Evidence(result=trial(None, 1, "diverged"))}
    varied = {("A", "mix"): seeds(2.0, 2.1), ("A", "pre"): one}
    found = DeviationStudy(
        recipe="table1", scale="cpu", command="mixln reproduce table1",
        measured=measured(RECIPE, plain), orderings=(ordering_result(CLAIM, RECIPE, plain),),
        varied=(
            VariantResult(
                name="embedding", trained=(), measured=measured(RECIPE, varied),
                effects=(effect(CLAIM, RECIPE, plain, varied),), seconds=1.0,
            ),
        ),
    )  # fmt: skip
    rows = {row[1]: row[2:] for row in numbers_beside(found).rows}
    assert rows[("pre",)] == (("—", "(0 of 2)"), ("12.18", "(1 of 2)"))
    (differences,) = differences_beside(found).rows
    assert differences[2:] == (
        ("−5.0%",),
        (*words.survived(((2, 2), (0, 2))), words.outcome("held", all_trained=False)),
        (*words.survived(((2, 2), (1, 2))), words.outcome("undecided", all_trained=False)),
    )
    (changes,) = changes_beside(found).rows
    assert changes[2:] == (("—",),)


def test_numbers_beside_each_other():
    evidence = {("A", "mix"): seeds(math.log(10), math.log(12.1)), ("A", "pre"): seeds(None, status="diverged")}
    mix, pre = (next(each for each in measured(RECIPE, evidence) if each.placement == name) for name in ("mix", "pre"))
    assert (mix.published, mix.seeds, mix.trained) == (19.0, 2, 2)
    assert QUANTITIES["perplexity"].metric.say_value(mix.value) == "11.00"  # the geometric mean
    assert (pre.published, pre.value, pre.trained) == (20.0, None, 0)


def test_the_report_says_what_held():
    evidence = {("A", "mix"): seeds(2.0, 2.1, 2.05), ("A", "pre"): seeds(3.0, 3.2, 3.05)}
    found = Reproduction(
        recipe="table1", scale="cpu", command="mixln reproduce table1", trained=(RUN,), measured=measured(RECIPE, evidence),
        orderings=tuple(ordering_result(claim, RECIPE, evidence) for claim in RECIPE.orderings), seconds=60.0,
    )  # fmt: skip
    said = markdown_outcome(found)
    assert words.tally(found) in said
    assert f"| mix | pre | {words.VERDICTS['held'][0]} | −64.4% \\[−69.2, −58.9\\] | 3 | −5.0% |" in said
    assert "| A | mix | 19.00 |" in said


def test_gradients_at_the_start():
    """Attention and feed-forward as one; the deeper half over the earlier; and how far they are from even."""
    profile = LayerProfile(step=1, attention=(3.0, 3.0, 6.0, 6.0), feed_forward=(4.0, 4.0, 8.0, 8.0))
    evidence = Evidence(result=trial(2.0, gradient_norms=(profile,)))
    contrast = QUANTITIES["gradient-contrast"].metric
    assert contrast.say(evidence) == "2"
    uneven = QUANTITIES["gradient-unevenness"].metric
    assert uneven.value(evidence) == pytest.approx(math.log(2) / 2)
    assert uneven.value(Evidence()) is None


def test_a_sweep_of_learning_rates_is_a_table_and_a_figure(tmp_path):
    found = Reproduction(
        recipe="table5", scale="cpu", command="c", trained=(), measured=(), orderings=(), seconds=1.0,
        swept=(
            SweepPoint(run="A", placement="pre", learning_rate=1e-3, losses=(math.log(10), math.log(10)), trained=2),
            SweepPoint(run="A", placement="pre", learning_rate=1e-2, losses=(math.log(12), None), trained=1),
            SweepPoint(run="A", placement="mix(1/4)", learning_rate=1e-3, losses=(None, None), trained=0),
        ),
    )  # fmt: skip
    said = markdown_outcome(found)
    assert "| placement | 0.001 | 0.01 |" in said
    assert "| pre | 10.00 | 12.00 (1 of 2) |" in said
    assert "| mix(1/4) | diverged | — |" in said
    assert {path.name for path in write_reproduction(found, tmp_path)} == {
        "reproduction.json", "reproduction.md", "sweep.png", "report.html",
    }  # fmt: skip


def test_a_mean_is_over_seeds_that_trained_or_over_seeds_that_stalled():
    stalled = Evidence(result=trial(7.0, 2, "stalled"))
    evidence = {("A", "mix"): {**seeds(2.0, 2.2), 2: stalled}, ("A", "pre"): seeds(7.0, 7.2, status="stalled")}
    found = {each.placement: each for each in measured(RECIPE, evidence)}
    assert found["mix"].value == pytest.approx(2.1)
    assert (found["mix"].trained, found["mix"].seeds) == (2, 3)
    assert found["pre"].value == pytest.approx(7.1)


def test_a_number_from_before_the_training_counts_all_seeds():
    assert QUANTITIES["gradient-unevenness"].seeds == "start"
    claim = dataclasses.replace(CLAIM, quantity="mean-task-accuracy")
    some = {
        seed: Evidence(result=trial(2.0, seed, status), figures={"average": 0.5 + seed / 100})
        for seed, status in enumerate(("finished", "finished", "stalled"))
    }
    every = {seed: Evidence(result=trial(2.0, seed), figures={"average": 0.3}) for seed in range(3)}
    assert ordering_result(claim, RECIPE, {("A", "mix"): some, ("A", "pre"): every}).verdict == "undecided"


def test_a_sweep_shows_the_mean_of_what_trained():
    def swept(*losses, trained):
        return SweepPoint(run="A", placement="mix", learning_rate=1e-3, losses=losses, trained=trained)

    assert swept(7.0, 2.0, 2.2, trained=2).counted == (2.0, 2.2)
    assert swept(7.2, None, 7.0, trained=0).counted == (7.0, 7.2)
    assert swept(None, None, trained=0).counted == ()
