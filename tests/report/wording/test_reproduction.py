"""The wording of the outcome of a recipe."""

from __future__ import annotations

import pytest

from mixln.compare.results import Interval
from mixln.recipes import RECIPES
from mixln.recipes.curves import CURVES
from mixln.recipes.deviations import DEVIATIONS
from mixln.recipes.quantities import QUANTITIES
from mixln.recipes.results import Line, OrderingResult, Reproduction, TrainedRun, VariantResult, Verdict
from mixln.report.wording import reproduction as words

RUN = TrainedRun(
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
)
IMAGES = TrainedRun(
    run="ViT",
    model="vit-tiny",
    placements=("pre",),
    learning_rates=(0.001, 0.003),
    seeds=(0,),
    init="megatron",
    batch_size=64,
    epochs=1.5,
)


def outcome(*verdicts: Verdict, ours: bool = False) -> Reproduction:
    orderings = tuple(
        OrderingResult(
            quantity="perplexity",
            ahead=("A", "mix"),
            behind=("A", "pre"),
            published=(19.0, 20.0),
            difference=Interval(mean=-0.1, low=-0.2, high=-0.05, pairs=3),
            verdict=verdict,
            ours=ours,
        )
        for verdict in verdicts
    )
    return Reproduction(
        recipe="table1", scale="cpu", command="mixln reproduce table1", trained=(), measured=(), orderings=orderings, seconds=1.0
    )  # fmt: skip


def test_everything_that_recipes_name_has_a_name_here() -> None:
    assert set(words.QUANTITIES) == set(QUANTITIES)
    assert set(words.CURVES) == set(CURVES)
    assert len(set(words.QUANTITIES.values())) == len(QUANTITIES)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (outcome("held"), "1 ordering of the paper: 1 held."),
        (
            outcome("held", "held", "reversed", "undecided", "at-chance", "not-measured"),
            "5 orderings of the paper: 2 held, 1 reversed, 1 undecided, 1 at chance level.",
        ),
        (
            outcome("single-seed", "single-seed", "failed"),
            "3 orderings of the paper: 2 without an interval over seeds, 1 failed.",
        ),
        (outcome("not-measured"), "The paper claims no ordering here."),
        (outcome("held", ours=True), "The paper claims no ordering here."),
    ],
)
def test_how_many_orderings_held(found: Reproduction, text: str) -> None:
    assert words.tally(found) == text


def test_the_outcome_of_one_ordering() -> None:
    assert words.outcome("undecided", all_trained=True) == "not significant over these seeds"
    assert words.outcome("at-chance", all_trained=True) == "both at chance level"
    assert words.outcome("undecided", all_trained=False) == "undecided"
    assert words.outcome("not-measured", all_trained=False) == "not measured at this scale"


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            RUN,
            "LLaMA-130M: tiny; post, pre; learning rate 0.003; seeds 0, 1, 2; 1,300 steps of 8 × 128 tokens, micro batch 4; init "
            "as "
            "recommended for each placement",
        ),
        (
            IMAGES,
            "ViT: vit-tiny; pre; learning rates 0.001, 0.003; seeds 0; 1.5 epochs, 64 images per step; init megatron",
        ),
    ],
)
def test_one_comparison(run: TrainedRun, text: str) -> None:
    assert words.trained(run) == text


def test_titles_name_the_quantity_where_there_is_one() -> None:
    assert words.numbers_title("perplexity") == "Perplexity: published and measured"
    assert words.numbers_title("") == "Published and measured"
    assert words.orders_title("deep-angle") == (
        "Did the paper's order hold, by angular distance of the deeper layers except the last two?"
    )
    assert words.differences_title("") == "Differences with the authors' code"
    assert words.changes_title("perplexity") == "Change of the differences, by perplexity"


def test_the_labels_of_curves() -> None:
    line = Line(curve="drops", run="A", placement="pre", seed=0, measure="loss", unit="nats per token", points=())
    assert words.curve_label(line) == "loss, nats per token"
    assert words.curve(CURVES["gradients"], [("A", 0.0)]).title == "Gradient norm at the first step by layer"


def test_what_the_authors_code_does_differently() -> None:
    varied = VariantResult(name="evaluation+bfloat16", trained=(), measured=(), effects=(), seconds=0.0)
    assert words.deviations(varied) == f"{DEVIATIONS['evaluation'].what}; {DEVIATIONS['bfloat16'].what}"


def test_a_restricted_outcome_is_of_a_restricted_recipe() -> None:
    found = outcome("held")
    assert words.recipe_of(found) is RECIPES["table1"]
    only = Reproduction(**{**vars(found), "only": ("LLaMA-71M",)})
    assert [run.name for run in words.recipe_of(only).runs("cpu", None)] == ["LLaMA-71M"]
