"""Image classifiers: what is measured, the labels' loss, resumption, and that small ones learn."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, ViTConfig

import mixln
from mixln.data.augmentation import CentreCrops, ImageCollator
from mixln.data.image_dataset import prepare_images
from mixln.data.settings import AugmentSettings, ImageSettings
from mixln.evaluation.predictions import Predictions
from mixln.runs.metrics import MetricsFile, read_metrics
from mixln.training.image_classification import ImageObjective
from mixln.training.pretraining import PretrainingConfig, PretrainingRun
from mixln.training.run import run
from mixln.training.settings import EngineSettings, VisionTrainSettings
from tests.data.image_files import write_images

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
PLAIN = AugmentSettings(crop=1, flip=0, label_smoothing=0)
ALL = AugmentSettings(rand_augment=9, mixup=0.8, cutmix=1.0, erasing=0.25)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    chosen = ImageSettings(data=str(write_images(folder / "data", count=20)))
    return prepare_images(chosen, size=8, channels=3, cache=folder / "cache")


def train(images, folder, placement="pre", *, augment=PLAIN, checkpoint_seconds=1e9, stochastic_depth=0.0, **settings):
    config = PretrainingConfig(
        model=ViTConfig(image_size=8, patch_size=4, num_channels=3, **SIZES),
        placement=placement,
        init="normal",
        learning_rate=settings.pop("learning_rate", 3e-3),
        seed=settings.pop("seed", 0),
        settings=VisionTrainSettings(
            **{"steps": 8, "batch_size": 6, "precision": "float32", "evaluations": 2, **settings}
        ),
        engine=EngineSettings(checkpoint_seconds=checkpoint_seconds),
        stochastic_depth=stochastic_depth,
    )
    return run(PretrainingRun(objective=ImageObjective(images, augment), config=config, folder=folder))


def rows(folder):
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


@pytest.mark.parametrize("placement", ["pre", "mix(0.5)", "hybrid*"])
def test_three_colours_are_learnt(images, tmp_path, placement):
    outcome = train(images, tmp_path, placement, steps=60)
    assert outcome.status == "finished"
    assert outcome.figures["accuracy"] == 1.0
    assert "top5" not in outcome.figures  # of three classes, all are among the first five
    assert outcome.loss < 0.2
    assert outcome.tokens == 60 * 6
    assert len(outcome.residual_variance) == len(outcome.gradient_norms) == 2


def test_the_model_is_saved_with_its_classes_and_its_processor(images, tmp_path):
    outcome = train(images, tmp_path, "mix(0.5)", stochastic_depth=0.1)
    folder = tmp_path / "checkpoint-8"
    model = mixln.from_pretrained(folder).eval()
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    assert model.config.stochastic_depth == 0.1
    processor = AutoImageProcessor.from_pretrained(folder)
    seen = [images.held_out.picture(index) for index in range(len(images.held_out))]
    with torch.no_grad():
        logits = model(**processor(images=seen, return_tensors="pt")).logits
    labels = torch.from_numpy(images.held_out.labels)
    assert F.cross_entropy(logits, labels).item() == pytest.approx(outcome.loss, rel=1e-4)
    assert (logits.argmax(-1) == labels).float().mean().item() == pytest.approx(outcome.figures["accuracy"])


def test_one_that_guesses_is_stalled(images, tmp_path):
    outcome = train(images, tmp_path, "post", steps=20, learning_rate=1.0)  # soon gives one class to all
    assert outcome.status == "stalled"
    assert "does not exceed the majority-class baseline 33.3%" in outcome.reason


@pytest.mark.parametrize(
    ("accuracy", "status"), [(1.0, "finished"), (0.981, "finished"), (0.9803, "stalled"), (0.5, "stalled")]
)
def test_of_a_class_of_nearly_all_images_little_is_left_to_learn(images, tmp_path, accuracy, status):
    """The most frequent class is 98% here: 2% of the rest are 0.04 points."""
    rare = replace(images, info=replace(images.info, majority=0.98))
    metrics = MetricsFile(tmp_path / "metrics.jsonl", resume_step=0)
    metrics.append({"step": 1, "eval_accuracy": accuracy, "eval_calibration": 0.0})
    assert ImageObjective(rare, PLAIN).judge(metrics).status == status


def test_the_answers_to_the_held_out_images_are_left(images, tmp_path):
    outcome = train(images, tmp_path, "mix(0.5)")
    answers = Predictions.read(tmp_path)
    model = mixln.from_pretrained(tmp_path / "checkpoint-8").eval()
    batch = ImageCollator(images.info, PLAIN, 0)(
        [CentreCrops(images.held_out, 8)[index] for index in range(len(images.held_out))]
    )
    with torch.no_grad():
        logits = model(pixel_values=batch["pixel_values"]).logits
    assert answers.labels.tolist() == images.held_out.labels.tolist()
    assert answers.predicted.tolist() == logits.argmax(-1).tolist()
    assert answers.confidence == pytest.approx(logits.softmax(-1).amax(-1).numpy(), rel=1e-4)
    losses = F.cross_entropy(logits, batch["labels"], reduction="none").numpy()
    assert answers.losses == pytest.approx(losses, rel=1e-4, abs=1e-6)
    found = answers.figures()
    assert {name: found[name] for name in outcome.figures} == outcome.figures


def test_a_training_that_was_cut_off_goes_on_with_the_same_numbers(images, tmp_path):
    """With crops, changes, mixing, stochastic depth and averaged weights."""
    how = {"augment": ALL, "stochastic_depth": 0.3, "steps": 12, "average": 0.9}
    train(images, tmp_path / "whole", "mix(0.5)", checkpoint_seconds=0, **how)
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(cut / "checkpoint-12")
    left = sorted(int(path.name.removeprefix("checkpoint-")) for path in cut.glob("checkpoint-*"))
    assert left
    assert left[-1] < 12
    train(images, cut, "mix(0.5)", **how)
    assert rows(cut) == rows(tmp_path / "whole")


def test_the_seed_decides_and_the_placement_does_not_move_the_data(images, tmp_path):
    losses = {}
    for name, placement, seed in (("a", "pre", 0), ("b", "pre", 0), ("c", "pre", 1)):
        train(images, tmp_path / name, placement, augment=ALL, seed=seed)
        losses[name] = [row["loss"] for row in rows(tmp_path / name) if "loss" in row]
    assert losses["a"] == losses["b"] != losses["c"]


def test_gradient_accumulation_gives_the_same_steps(images, tmp_path):
    whole = train(images, tmp_path / "a")
    parts = train(images, tmp_path / "b", micro_batch_size=2)
    for (step, one), (other, two) in zip(whole.train_curve, parts.train_curve, strict=True):
        assert step == other
        assert one == pytest.approx(two, rel=1e-4)


def test_smoothed_and_mixed_labels_are_what_the_loss_is_taken_of(images, tmp_path):
    """At the start the logits are nearly equal, so whatever the labels the loss is log 3."""
    outcome = train(images, tmp_path, augment=ALL, steps=1, learning_rate=1e-9)
    assert outcome.train_curve[0][1] == pytest.approx(math.log(3), abs=0.1)
    config = json.loads((tmp_path / "checkpoint-1" / "preprocessor_config.json").read_text())
    assert config["size"] == {"height": 8, "width": 8}


def test_averaged_weights_are_evaluated_and_saved(images, tmp_path):
    train(images, tmp_path / "weights")
    outcome = train(images, tmp_path / "average", average=0.9)
    one, two = (mixln.from_pretrained(tmp_path / name / "checkpoint-8") for name in ("weights", "average"))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    losses = [[row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("weights", "average")]
    assert losses[0] == losses[1], "the training itself must not see the average"
    seen = [CentreCrops(images.held_out, 8)[index] for index in range(len(images.held_out))]
    batch = ImageCollator(images.info, PLAIN, 0)(seen)
    with torch.no_grad():
        logits = two.eval()(pixel_values=batch["pixel_values"]).logits
    assert F.cross_entropy(logits, batch["labels"]).item() == pytest.approx(outcome.loss, rel=1e-5)
