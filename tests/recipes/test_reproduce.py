"""`mixln reproduce` of a recipe for language, on a small model and text: from the trainings to the verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from mixln.cli import main
from mixln.compare.results import Chain, ChainResult
from mixln.compare.settings import CompareSettings, ExecutorSettings
from mixln.data.settings import TextSettings
from mixln.recipes import RECIPES
from mixln.recipes.curves import CURVES
from mixln.recipes.deviations import DEVIATIONS
from mixln.recipes.folders import seeds_of
from mixln.recipes.plan import planned
from mixln.recipes.records import Ordering, Recipe, Run, row
from mixln.recipes.reproducing import costs_of
from mixln.recipes.results import REPRODUCTION
from mixln.report.wording import recipe_plan
from mixln.report.wording import reproduction as words
from mixln.runs.outcome import PostTrainingOutcome
from mixln.runs.trials import Trial, TrialResult
from mixln.training.settings import TrainSettings
from tests import small
from tests.report import samples

pytestmark = pytest.mark.long

UNEVEN, ANGLE = "gradient-unevenness", "deep-angle"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Two placements of six layers, two learning rates, two seeds; its layers are measured."""
    small.write_folder(tmp_path / "text", small.documents())
    small.write_config(tmp_path / "config.json", num_hidden_layers=6)
    settings = CompareSettings(
        model=str(tmp_path / "config.json"),
        placements=("pre", "mix(1/3)"),
        learning_rates=(1e-3, 3e-3),
        seeds=(0, 1),
        init="normal",
        execution=ExecutorSettings(jobs=1),
        text=TextSettings(data=str(tmp_path / "text"), sequence_length=16, vocabulary_size=300, held_out=0.2),
        training=TrainSettings(steps=60, batch_size=4, precision="float32", evaluations=2),
    )
    made = Recipe(
        title="A table", source="Mix-LN, arXiv:2412.13795, a table", reading="As it stands.", terms="As others.",
        scaled="everything", minutes=1,
        runs=lambda scale, data: (Run(name="Small", settings=settings, diagnosed=True),),
        published={"perplexity": row("Small", {"pre": 20.0, "mix(1/3)": 19.0})},
        stated_orderings=(
            Ordering(quantity=UNEVEN, ahead=("Small", "mix(1/3)"), behind=("Small", "pre")),
            Ordering(quantity=ANGLE, ahead=("Small", "mix(1/3)"), behind=("Small", "pre"), ours=True),
        ),
        angles=True,
        curves=tuple(CURVES),
    )  # fmt: skip
    monkeypatch.setitem(RECIPES, "small", made)
    return made


def test_a_recipe_of_language_from_its_trainings_to_its_verdicts(recipe, tmp_path, capsys):
    command = ["reproduce", "small", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    out = tmp_path / "out" / "small-cpu"
    found = json.loads((out / "reproduction.json").read_text())
    tally = words.tally(REPRODUCTION.read(out / "reproduction.json"))
    assert tally in said
    assert (found["recipe"], found["command"]) == ("small", "mixln reproduce small")
    assert [run["run"] for run in found["trained"]] == ["Small"]
    measured = {(each["quantity"], each["placement"]): each for each in found["measured"]}
    assert measured["perplexity", "pre"]["published"] == 20.0
    assert measured["perplexity", "pre"]["seeds"] == 2
    assert measured[UNEVEN, "mix(1/3)"]["published"] is None
    claims = {each["quantity"]: each for each in found["orderings"]}
    assert claims["perplexity"]["published"] == [19.0, 20.0]
    assert {name: claim["difference"]["pairs"] for name, claim in claims.items()} == {
        "perplexity": 2,
        UNEVEN: 2,
        ANGLE: 2,
    }
    assert [claim["ours"] for claim in claims.values()] == [False, False, True]

    # What it says are the numbers of the comparison, and the diagnoses of every trial.
    (trained,) = (tmp_path / "out" / "trainings").iterdir()
    assert not (trained / "report.html").exists()  # which the next recipe would replace
    summary = json.loads((out / "small" / "results.json").read_text())
    for place in summary["placements"]:
        best = measured["perplexity", place["placement"]]
        assert best["value"] == pytest.approx(place["best"]["loss"])
    assert len(list(trained.glob("*/trial-diagnosis.json"))) == 4  # each placement's best, both seeds
    assert len(found["swept"]) == 4
    drawn = {"angular.png", "drops.png", "gradients.png", "course.png", "sweep.png"}
    assert {path.name for path in out.glob("*.png")} == drawn
    page = (out / "report.html").read_text("utf-8")
    assert tally in page
    assert "As others. As it stands." in page

    # Its figures draw the numbers of the trials and their diagnoses.
    lines = {(each["curve"], each["placement"], each["seed"]): each for each in found["lines"]}
    assert len(lines) == len(CURVES) * 2 * 2
    best = measured["perplexity", "pre"]["value"]
    losses = [math.log(lines["course", "pre", seed]["points"][-1][1]) for seed in (0, 1)]
    assert sum(losses) / 2 == pytest.approx(best)
    rate = next(place["best"]["learning_rate"] for place in summary["placements"] if place["placement"] == "pre")
    diagnoses = [
        json.loads((trained / f"pre_lr{rate:g}_seed{seed}" / "trial-diagnosis.json").read_text())["result"]
        for seed in (0, 1)
    ]
    drop = lines["drops", "pre", 1]
    assert (drop["measure"], drop["unit"]) == ("loss", "nats per token")
    assert drop["points"] == [[each["first"], each["change"]] for each in diagnoses[1]["drops"]["skipped"]]
    (turned,) = [each for each in found["turned"] if each["placement"] == "pre"]
    cells = [diagnosis["angular"]["distance"][2][1] for diagnosis in diagnoses]
    assert turned["angles"]["distance"][2][1] == pytest.approx(sum(cells) / 2)

    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")} == marks
    capsys.readouterr()

    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "small.json").write_text((out / "reproduction.json").read_text())
    assert main(["reproduce", "--document", str(documents)]) == 0
    page = capsys.readouterr().out
    assert "## `small`: A table\n\nMix-LN, arXiv:2412.13795, a table. As it stands.\n" in page
    assert page.count("As others.") == 1
    assert "- `small`: As others.\n" in page
    assert "](documents/small-angular.png)" in page
    assert {path.name for path in documents.glob("*.png")} == {f"small-{name}" for name in drawn}
    assert f"| table1 | {RECIPES['table1'].title} | — | — | — | {words.NOT_RUN} |" in page


def test_what_a_recipe_trained_counts_the_steps_after_the_pre_training(recipe):
    def ended(placement: str, **steps: PostTrainingOutcome) -> ChainResult:
        return ChainResult(trial=Trial(placement=placement, init="normal", learning_rate=1e-3, seed=0), **steps)

    tuned = PostTrainingOutcome(
        status="finished", reason="", step=1, examples=1, held_out=1, removed=0, too_long=0, before={}, after={}, curves={},
        gradient_norms=(), seconds=20.0,
    )  # fmt: skip
    (run,) = recipe.runs("cpu", None)
    later = (ended("pre", finetuned=tuned, rlhf=tuned), ended("mix(1/3)", finetuned=tuned), ended("post", rlhf=tuned))
    trained = [
        TrialResult(
            trial=each.trial, status="finished", step=1, tokens=1, loss=2.0, bits_per_byte=None, tokens_per_second=None, seconds=3.0
        )
        for each in later
    ]  # fmt: skip
    chain = Chain(steps=("finetune", "rlhf"), settings={}, tasks=(), chance={}, rows=(), results=later)
    summary = samples.summary([], trained, chain=chain)
    found = {trial.placement: seconds for (_, trial), seconds in costs_of([run], {"Small": summary}).items()}
    assert found == {"pre": 43.0, "mix(1/3)": 23.0}  # another recipe's Post-LN lies in the same folder


def test_what_the_authors_code_makes_of_it_stands_beside_it(recipe, tmp_path, capsys):
    """n batches counted as n + 1, of the same trainings; and weights in bfloat16, of others."""
    one = recipe.runs("cpu", None)[0]
    fewer = dataclasses.replace(one.settings, learning_rates=(3e-3,))
    RECIPES["small"] = dataclasses.replace(
        recipe,
        stated_orderings=(),
        runs=lambda scale, data: (dataclasses.replace(one, settings=fewer, diagnosed=False),),
    )
    out, trainings = tmp_path / "out" / "small-cpu", tmp_path / "out" / "trainings"
    command = ["reproduce", "small", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*command, "--as-published", "evaluation", "bfloat16"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"With the authors' code, evaluation: {DEVIATIONS['evaluation'].what}" in said
    assert said.count(recipe_plan.NO_TRAINING) == 1
    reproduction = json.loads((out / "reproduction.json").read_text())
    plain = {each["placement"]: each["value"] for each in reproduction["measured"]}
    found = json.loads((out / "as-published.json").read_text())
    assert found["command"] == "mixln reproduce small --as-published evaluation bfloat16"
    evaluation, bfloat16 = found["varied"]

    otherwise = out / "small-bfloat16" / "results.json"
    for each in evaluation["measured"]:
        assert each["value"] == pytest.approx(plain[each["placement"]] * 600 / 601, rel=1e-6)
    assert evaluation["seconds"] == 0
    assert json.loads(otherwise.read_text())["settings"]["training"]["weights"] == "bfloat16"

    assert all(each["value"] != plain[each["placement"]] for each in bfloat16["measured"])
    for varied in (evaluation, bfloat16):
        (effect,) = varied["effects"]
        gap = effect["ordering"]["difference"]["mean"] - found["orderings"][0]["difference"]["mean"]
        assert effect["change"]["mean"] == pytest.approx(gap)
        assert effect["change"]["pairs"] == 2
        assert effect["change"]["low"] <= gap <= effect["change"]["high"]
    marks = {path: path.stat().st_mtime_ns for path in trainings.rglob("result.json")}
    assert main([*command, "--as-published", "evaluation,bfloat16"]) == 0
    assert {path: path.stat().st_mtime_ns for path in trainings.rglob("result.json")} == marks
    page = (out / "as-published.md").read_text()
    head = (words.PAPER_AHEAD, words.AHEAD_OF, words.PUBLISHED, words.PAPER, "evaluation", "bfloat16")
    assert f"| {' | '.join(head)} |" in page
    assert "| mix(1/3) | pre | −5.0% |" in page  # 19 and 20

    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "small.json").write_text((out / "reproduction.json").read_text())
    (documents / "small.as-published.json").write_text((out / "as-published.json").read_text())
    assert main(["reproduce", "--document", str(documents)]) == 0
    assert words.beside_heading(recipe.title, "small") in capsys.readouterr().out


def test_only_some_of_the_models(recipe, tmp_path, capsys):
    (run,) = recipe.runs("cpu", None)
    RECIPES["small"] = dataclasses.replace(
        recipe, runs=lambda scale, data: (run, dataclasses.replace(run, name="Other")),
        published={"perplexity": {("Small", "pre"): 20.0, ("Small", "mix(1/3)"): 19.0, ("Other", "pre"): 18.0}},
        stated_orderings=(Ordering(quantity=UNEVEN, ahead=("Other", "pre"), behind=("Small", "pre")),),
    )  # fmt: skip
    made = RECIPES["small"].only(("Small",), "cpu")
    assert [run.name for run in made.runs("cpu", None)] == ["Small"]
    assert set(made.published["perplexity"]) == {("Small", "pre"), ("Small", "mix(1/3)")}
    assert [claim.quantity for claim in made.orderings] == ["perplexity"]
    assert main(["reproduce", "small", "--only", "Otter", "--out", str(tmp_path / "out")]) == 2
    assert "only 'Otter' is not known; did you mean Other? known: Small, Other" in capsys.readouterr().err
    assert main(["reproduce", "small", "--only", "Small", "Small", "--plan"]) == 2
    assert "only must not repeat, got Small twice" in capsys.readouterr().err
    assert main(["reproduce", "small", "--only", "Small", "--plan"]) == 0
    assert "Other: " not in capsys.readouterr().out


def test_other_seeds_go_on_from_what_was_trained(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # a long path is broken at the edge of the terminal
    one = recipe.runs("cpu", None)[0]
    fewer = dataclasses.replace(one.settings, learning_rates=(3e-3,))
    RECIPES["small"] = dataclasses.replace(
        recipe, stated_orderings=(), minutes=10, runs=lambda scale, data: (dataclasses.replace(one, settings=fewer, diagnosed=False),)
    )  # fmt: skip
    command = ["reproduce", "small", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    (plain,) = RECIPES["small"].runs("cpu", None)
    assert main([*command, "--plan"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(" ".join(recipe_plan.comparison(plain, 0).split()))
    assert main(command) == 0
    (trained,) = (tmp_path / "out" / "trainings").iterdir()
    marks = {path: path.stat().st_mtime_ns for path in trained.rglob("result.json")}
    first = (tmp_path / "out" / "small-cpu" / "reproduction.json").read_text()
    capsys.readouterr()

    assert main([*command, "--seeds", "0", "1", "2", "--plan"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    more = dataclasses.replace(plain, settings=dataclasses.replace(plain.settings, seeds=(0, 1, 2)))
    assert recipe_plan.comparison(more, 4) in said
    assert "15 minutes" in said  # of 10 for two seeds
    assert main([*command, "--seeds", "0", "1", "2", "--checkpoint-seconds", "0", "--activation-checkpointing"]) == 0
    found = json.loads((tmp_path / "out" / "small-cpu-seeds-0-1-2" / "reproduction.json").read_text())
    assert {each["seeds"] for each in found["measured"] if each["quantity"] == "perplexity"} == {3}
    assert found["command"] == "mixln reproduce small --seeds 0 1 2"
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    assert len(list(trained.rglob("result.json"))) == 6

    assert main(command) == 0  # of its own seeds alone, as before
    again = json.loads((tmp_path / "out" / "small-cpu" / "reproduction.json").read_text())
    assert again["measured"] == json.loads(first)["measured"]


def test_a_smaller_micro_batch(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # a long path is broken at the edge of the terminal
    command = ["reproduce", "small", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--plan"]
    assert main([*command, "--micro-batch-size", "3"]) == 2
    assert "micro-batch-size must divide batch-size 4, got 3" in capsys.readouterr().err
    assert main([*command, "--micro-batch-size", "0"]) == 2
    assert "micro-batch-size must be at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    plain = capsys.readouterr().out
    assert main([*command, "--micro-batch-size", "8"]) == 0  # more than the batch of 4
    assert capsys.readouterr().out == plain
    assert main([*command, "--micro-batch-size", "2"]) == 0
    (run,) = recipe.runs("cpu", None)
    training = dataclasses.replace(run.settings.training, micro_batch_size=2)
    split = dataclasses.replace(run, settings=dataclasses.replace(run.settings, training=training))
    assert recipe_plan.comparison(split, 0) in " ".join(capsys.readouterr().out.split())


def test_a_micro_batch_of_one_device_that_eight_could_not_share(capsys):
    """512 sequences are 64 for each of eight GPUs, which the plan proposes."""
    assert (
        main(["reproduce", "table1", "--scale", "paper", "--only", "LLaMA-1B", "--micro-batch-size", "512", "--plan"])
        == 0
    )
    assert "micro batch 64" in capsys.readouterr().out  # no more than the recipe has


@pytest.mark.parametrize(
    ("seeds", "name"),
    [
        ((5,), "seeds-5"),
        ((0, 1, 2), "seeds-0-1-2"),
        (range(10), "seeds-0-to-9"),
        ((7, 0, 1, 2, 3), "seeds-7-0-to-3"),
        (range(0, 400, 2), "seeds-200-"),
    ],
)
def test_seeds_in_the_name_of_a_folder(seeds, name):
    assert seeds_of(tuple(seeds)).startswith(name)
    assert len(seeds_of(tuple(seeds))) < 80


class _Gpu:
    total_memory = 40e9


def test_a_gpu_that_is_too_small_hears_what_would_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: _Gpu())
    command = ["reproduce", "table1", "--scale", "paper", "--only", "LLaMA-1B", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    said = capsys.readouterr().err
    need, remedy = re.search(
        r"needs (\d+) GB of GPU memory for LLaMA-1B .*have 40 GB; add (.*?), or",
        said,
    ).groups()
    assert int(need) > 40
    monkeypatch.setattr("mixln.cli.reproduce.check_writable", _reached)
    with pytest.raises(_Reached):
        main([*command, *remedy.split()])


class _Reached(Exception):
    pass


def _reached(path):
    raise _Reached


def test_the_plan_of_the_paper_counts_what_it_takes(capsys):
    """Table 1's largest size: 13.1 billion tokens of 1.34 billion parameters, 12 times."""
    assert main(["reproduce", "table1", "--scale", "paper", "--plan"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert recipe_plan.comparison(RECIPES["table1"].runs("paper", None)[-1], 0) in said
    assert "1,339 million parameters, 13.1 billion tokens each" in said


def test_the_scale_of_the_paper_without_a_gpu_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["reproduce", "table1", "--scale", "paper", "--out", str(tmp_path / "out")]) == 2
    assert "scale paper needs a GPU for each training (71m, 130m, 250m, 1b)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compiled_layers_are_not_sharded(tmp_path, capsys):
    command = ["reproduce", "table1", "--compile", "on", "--parallel", "fsdp", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "compile on requires --parallel ddp" in capsys.readouterr().err


def test_the_document_is_what_the_stored_outcomes_say(tmp_path, capsys):
    """`just documents` writes it."""
    docs = Path(__file__).parents[2] / "docs"
    shutil.copytree(docs / "papers", tmp_path / "papers", ignore=shutil.ignore_patterns("*.png"))
    assert main(["reproduce", "--document", str(tmp_path / "papers")]) == 0
    assert capsys.readouterr().out == (docs / "papers.md").read_text("utf-8")


def test_documents_that_are_none(tmp_path, capsys):
    assert main(["reproduce", "--document", str(tmp_path)]) == 2
    assert "holds no NAME.json of a recipe" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert main(["reproduce", "--document", str(tmp_path)]) == 2
    assert "must be named after a recipe" in capsys.readouterr().err
    (tmp_path / "other.json").rename(tmp_path / "table1.json")
    assert main(["reproduce", "--document", str(tmp_path)]) == 2
    assert "is not a file written by mixln reproduce" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("data", "my.txt"), ("seeds", "0"), ("micro-batch-size", "0"), ("micro-batch-size", "4"), ("compile", "off")],
)
def test_what_only_a_training_asks_for_is_refused(option, value, tmp_path, capsys):
    assert main(["reproduce", "table7", f"--{option}", value, "--out", str(tmp_path / "out")]) == 2
    assert f"{option} does not apply to table7, which trains nothing" in capsys.readouterr().err


def test_several_processes_do_no_steps_after_pre_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["reproduce", "table2", "--out", str(tmp_path / "out")]) == 2
    assert "the steps after the pre-training of LLaMA-250M run on one device each" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_scale_of_the_paper_on_a_cluster_wants_gpus(tmp_path, capsys):
    command = ["reproduce", "table1", "--scale", "paper", "--out", str(tmp_path / "out")]
    assert main([*command, "--executor", "ray"]) == 2
    assert "scale paper needs a GPU for each training; add --gpus-per-trial 1" in capsys.readouterr().err
    assert main([*command, "--gpus-per-trial", "1"]) == 2
    assert "apply only to --executor ray; add it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "alone"),
    [
        ("figure4", False),
        ("hybridnorm-experts", False),
        ("hybridnorm", True),
        ("hybridnorm-tasks", True),
        ("table3", True),
    ],
)
def test_every_model_fits_one_gpu_or_eight(recipe, alone, capsys):
    """Of 80 GB. What is trained further after its pre-training has to fit one, for it takes one device each."""
    for run in RECIPES[recipe].runs("paper", None):
        assert (planned(run).memory.total < 80e9) == alone
        assert planned(run, processes=8, parallel="fsdp").memory.total < 80e9
    assert main(["reproduce", recipe, "--scale", "paper", "--plan"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("one trial per GPU" in said) == alone
    assert ("does not fit: start it with torchrun on eight GPUs and --parallel fsdp" in said) == (not alone)
    assert ("Not included: the steps after pre-training." in said) == (recipe in ("hybridnorm-tasks", "table3"))
