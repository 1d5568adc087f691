"""Table 4 of Mix-LN: its settings against ConvNeXt's, its plan against published counts, and the small scale on few steps."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mixln.cli import main
from mixln.compare.settings import ExecutorSettings
from mixln.planning.vision import plan_vision
from mixln.presets import vision_config
from mixln.recipes import RECIPES
from mixln.recipes.results import REPRODUCTION
from mixln.report.wording import recipe_plan
from mixln.report.wording import reproduction as words
from tests.data.image_files import write_images


def test_the_settings_are_convnexts():
    """arXiv:2201.03545, Table 5: what is not named there is not asked here."""
    for run in RECIPES["table4"].runs("paper", None):
        settings, training, augment = run.settings, run.settings.training, run.settings.augment
        assert settings.placements == ("pre", "mix(0.25)")
        assert settings.learning_rates == (4e-3,)
        assert (training.batch_size, training.weight_decay, training.beta1, training.beta2) == (4096, 0.05, 0.9, 0.999)
        assert (training.epochs, training.warmup * training.epochs, training.final_learning_rate) == (120, 20, 0)
        assert (training.average, training.max_gradient_norm) == (0.9999, 0)
        assert (augment.rand_augment, augment.mixup, augment.cutmix, augment.erasing) == (9, 0.8, 1.0, 0.25)
        assert (augment.label_smoothing, settings.stochastic_depth) == (0.1, 0.1)


def test_the_published_figures_are_table_4s():
    assert RECIPES["table4"].published["accuracy"] == {
        ("ViT-Tiny", "pre"): 67.30,
        ("ViT-Tiny", "mix(0.25)"): 67.34,
        ("ViT-Small", "pre"): 75.99,
        ("ViT-Small", "mix(0.25)"): 76.40,
    }


@pytest.mark.parametrize(
    ("index", "parameters", "multiplications"), [(0, 5.7e6, 1.3e9), (1, 22.1e6, 4.6e9)], ids=["vit-tiny", "vit-small"]
)
def test_the_plan_agrees_with_published_counts(index, parameters, multiplications):
    """DeiT-Ti and DeiT-S: parameters, and multiplications of a forward pass at 224 pixels (arXiv:2012.12877, arXiv:2103.14030)."""
    run = RECIPES["table4"].runs("paper", None)[index]
    config = vision_config(run.settings.model, **run.settings.sizes)
    plan = plan_vision(config, run.settings.training, trials=run.trials, images=1_281_167, classes=1000)
    assert plan.parameters == pytest.approx(parameters, rel=0.01)
    assert plan.per_image == pytest.approx(6 * multiplications, rel=0.04)
    assert plan.steps == 120 * (1_281_167 // 4096)
    assert (plan.trials, plan.images) == (6, plan.steps * 4096)


def test_the_list_and_the_plan_train_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "--list"]) == 0
    assert "table4" in capsys.readouterr().out
    assert main(["reproduce", "table4", "--scale", "paper", "--plan"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert recipe_plan.comparison(RECIPES["table4"].runs("paper", None)[0], 0) in said
    assert "22.1 million parameters, 37,440 steps" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table9"], "recipe 'table9' is not known; did you mean table8? known: table1, table2"),
        ([], "recipe must be one of table1, table2"),
    ],
)
def test_what_is_not_known(arguments, said, capsys):
    assert main(["reproduce", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_a_small_run_stands_beside_what_was_published(tmp_path, monkeypatch, capsys):
    """The recipe itself with fewer and smaller images, steps and seeds."""
    recipe = RECIPES["table4"]
    (run,) = recipe.runs("cpu", str(write_images(tmp_path / "data", count=30)))
    few = dataclasses.replace(run.settings.training, steps=20, batch_size=9, evaluations=1, precision="float32")
    settings = dataclasses.replace(
        run.settings,
        image_size=8,
        patch_size=4,
        num_channels=3,
        seeds=(0, 1),
        training=few,
        execution=ExecutorSettings(jobs=1),
    )
    small = dataclasses.replace(recipe, runs=lambda scale, data: (
        (dataclasses.replace(run, settings=settings),) if scale == "cpu" else recipe.runs(scale, data)
    ))  # fmt: skip
    monkeypatch.setitem(RECIPES, "table4", small)
    assert main(["reproduce", "table4", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert words.numbers_title("accuracy") in said
    assert "67.34%" in said
    results = tmp_path / "out" / "table4-cpu" / "vit-tiny" / "results.json"
    assert json.loads(results.read_text())["task"] == "vision"
    found = json.loads((tmp_path / "out" / "table4-cpu" / "reproduction.json").read_text())
    assert words.tally(REPRODUCTION.read(tmp_path / "out" / "table4-cpu" / "reproduction.json")) in said
    (claim,) = found["orderings"]
    assert (claim["ahead"], claim["behind"]) == (["ViT-Tiny", "mix(0.25)"], ["ViT-Tiny", "pre"])
    assert claim["difference"]["pairs"] == 2
