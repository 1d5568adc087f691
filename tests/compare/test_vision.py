"""A comparison of image classifiers from the command line, on real files and on scikit-learn's digits: all of it, and its errors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from mixln.cli import main
from mixln.compare.settings import CompareSettings, VisionCompareSettings
from mixln.errors import SettingsError
from mixln.presets import VISION_PRESETS, vision_config
from tests.data.image_files import write_images

pytestmark = pytest.mark.long

SMALL = {
    "model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "image_size": 8, "patch_size": 4, "num_channels": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of three colours with a grey, a truncated and an unreadable image, and a model's config."""
    folder = tmp_path_factory.mktemp("files")
    data = write_images(folder / "data", count=30)
    Image.new("L", (8, 8), 90).save(data / "red" / "grey.png")
    whole = (data / "red" / "00.png").read_bytes()
    (data / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "blue" / "no.png").write_bytes(b"no image")
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder


def arguments(files: Path, out: Path, *more: str) -> list[str]:
    return [
        "compare", "--task", "vision", "--data", str(files / "data"), "--model", str(files / "config.json"), "--out", str(out),
        "--cache", str(files / "cache"), "--batch-size", "9", "--steps", "40", "--evaluations", "2", "--flip", "0", "--jobs", "1",
        "--unreadable", "0.05", "--precision", "float32", "--compile", "off", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "colours"
    assert main(arguments(files, out, "--placements", "pre", "mix(0.25)", "--diagnose")) == 0
    return out


def test_a_comparison_from_files_to_report(done):
    found = json.loads((done / "results.json").read_text())
    assert found["task"] == "vision"
    assert [row["best"]["finished"] for row in found["placements"]] == [2, 2]
    assert all(trial["figures"]["accuracy"] > 0.9 for trial in found["trials"])
    assert (found["images"]["unreadable"], found["images"]["converted"]) == (2, 1)
    assert (found["findings"][0]["kind"], found["findings"][0]["judgement"]) == ("leader", "not-separated")
    assert [answered["placement"] for answered in found["answered"]] == ["pre", "mix(0.25)"]
    assert "images/s" in (done / "table.md").read_text()


def test_its_diagnoses_have_the_drop_by_accuracy(done):
    found = json.loads((done / "results.json").read_text())
    assert not any(found["warnings"].values())
    for diagnosis in found["diagnoses"]:
        (drop,) = diagnosis["tasks"]
        assert (drop["measure"], drop["better"], len(drop["skipped"])) == ("accuracy", "higher", 4)
        assert drop["original"] > 0.9
        assert diagnosis["drops"]["unit"] == "nats per image"
        assert (diagnosis["images"]["description"], diagnosis["images"]["held_out"]) == ("data (local)", True)


def test_the_same_command_finds_everything_done_and_another_setting_another_experiment(files, done, capsys):
    assert main(arguments(files, done, "--placements", "pre", "mix(0.25)")) == 0
    assert "trials: 4 of 4 done, nothing to run" in capsys.readouterr().out
    assert main(arguments(files, done, "--placements", "pre", "mix(0.25)", "--mixup", "0.8")) == 2
    assert "holds another experiment: mixup was 0.0, now 0.8" in capsys.readouterr().err


def test_a_trial_is_diagnosed_on_the_images_that_it_held_out_and_on_no_others(
    files, done, tmp_path, capsys, monkeypatch
):
    """From the cache, wherever the command is given and whatever became of the folder; without the cache, only if it is as it was."""
    moved = tmp_path / "moved"
    monkeypatch.chdir(tmp_path)
    trial = str(done / "pre_lr0.001_seed0")
    (files / "data").rename(moved)
    try:
        assert main(["diagnose", trial, "--out", "a", "--cache", str(files / "cache")]) == 0
        assert main(["diagnose", trial, "--out", "b", "--cache", str(tmp_path / "other")]) == 2
        assert "is not a folder of images" in capsys.readouterr().err
    finally:
        moved.rename(files / "data")
    image = files / "data" / "red" / "00.png"
    before = image.stat()
    image.touch()
    assert main(["diagnose", trial, "--out", "b", "--cache", str(tmp_path / "other")]) == 2
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "has changed since the model was trained on it" in capsys.readouterr().err


def test_a_damaged_file_of_answers_does_not_cost_the_report(files, done):
    answers = done / "pre_lr0.001_seed0" / "answers.npz"
    whole = answers.read_bytes()
    try:
        answers.write_bytes(whole[:200])
        assert main(arguments(files, done, "--placements", "pre", "mix(0.25)")) == 0
    finally:
        answers.write_bytes(whole)


def test_an_experiment_of_language_is_another(files, done, capsys):
    assert main(["compare", "--task", "language", "--out", str(done)]) == 2
    assert "holds another experiment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--image-size", "10"), "image-size must be a multiple of the patch size 4, got 10; choose --patch-size 5, or another"),
        (("--batch-size", "500"), "training images are fewer than one batch of 500"),
        (("--model", "vit-huge"), "known: vit-micro, vit-tiny"),
        (("--unreadable", "0.001"), "2 of 93 images cannot be read, more than the share of 0.001"),
        (("--stochastic-depth", "1"), "stochastic-depth must lie in [0, 1), got 1.0"),
        (("--average", "1"), "average must lie in [0, 1), got 1.0"),
        (("--patch-size", "0"), "patch-size must be at least 1, got 0"),
        (("--epochs", "0"), "epochs must be above 0, got 0.0"),
        (("--epochs", "3", "--steps", "40"), "give only one of them"),
        (("--num-channels", "2"), "--num-channels"),
        (("--sequence-length", "8"), "see mixln compare --task vision --help"),
        (("--image-size", "7", "--patch-size", "2"), "choose --patch-size 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_is_written(files, tmp_path, capsys, more, said):
    try:
        code = main(arguments(files, tmp_path / "out", *more))
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_family_is_refused():
    with pytest.raises(SettingsError, match="known: vit-micro, vit-tiny"):
        vision_config("tiny")


def test_the_task_is_the_class():
    with pytest.raises(SettingsError, match=r"^task of CompareSettings is language, got vision$"):
        CompareSettings(task="vision")
    assert VisionCompareSettings().learning_rates == (1e-3,)


def test_presets_are_those_of_the_papers():
    """DeiT-Ti, DeiT-S and ViT-B (arXiv:2012.12877, Table 1): width, heads, layers."""
    sizes = {name: (p.hidden_size, p.heads, p.layers, p.image_size, p.patch_size) for name, p in VISION_PRESETS.items()}
    assert sizes["vit-tiny"] == (192, 3, 12, 224, 16)
    assert sizes["vit-small"] == (384, 6, 12, 224, 16)
    assert sizes["vit-base"] == (768, 12, 12, 224, 16)
    config = vision_config("vit-tiny", image_size=32, patch_size=4)
    assert (config.intermediate_size, config.image_size, config.patch_size, config.num_channels) == (768, 32, 4, 3)
