"""What a training sees is a function of seed and draw; each change does what its paper says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mixln.data import augmentation
from mixln.data.augmentation import (
    CentreCrops,
    ImageCollator,
    ShuffledImages,
    blended,
    check_augmentation,
    drawn,
    mixed,
    pasted,
)
from mixln.data.image_dataset import prepare_images
from mixln.data.settings import AugmentSettings, ImageSettings
from mixln.errors import SettingsError
from tests.data.image_files import write_images

NOTHING = AugmentSettings(crop=1, flip=0, label_smoothing=0)
ALL = AugmentSettings(crop=0.3, flip=0.5, rand_augment=9, mixup=0.8, cutmix=1.0, erasing=0.25)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    chosen = ImageSettings(data=str(write_images(folder / "data", size=(8, 8))))
    return prepare_images(chosen, size=8, channels=3, cache=folder / "cache")


def draws(images, *, seed=0, draws=100, batch=4, size=8, crop=1.0):
    return ShuffledImages(images.train, seed, draws, batch, size, crop)


def batch(images, augment, *, seed=0, first=0, count=16):
    rows = draws(images, seed=seed, crop=augment.crop)
    return ImageCollator(images.info, augment, seed)([rows[first + number] for number in range(count)])


def keys(rows, start, end):
    return [rows[index]["pixel_values"].numpy().tobytes() for index in range(start, end)]


def test_each_image_is_drawn_once_an_epoch_less_those_of_a_last_batch_that_is_not_full(images):
    rows = draws(images)  # 27 images in batches of 4: 24 an epoch
    first, second = keys(rows, 0, 24), keys(rows, 24, 48)
    assert len(set(first)) == len(set(second)) == 24
    assert first != second
    assert keys(draws(images, seed=1), 0, 24) != first


@pytest.mark.parametrize("augment", [NOTHING, AugmentSettings(), ALL], ids=["nothing", "default", "all"])
def test_a_batch_is_a_function_of_seed_and_draw_alone(images, augment):
    once = batch(images, augment, first=8)
    torch.rand(3)
    np.random.default_rng().random()
    before = torch.get_rng_state()
    again = batch(images, augment, first=8)
    assert torch.equal(torch.get_rng_state(), before)  # what the model draws is not moved by it
    for name in once:
        assert torch.equal(once[name], again[name])
    if augment is not NOTHING:
        assert not torch.equal(batch(images, augment, first=12, count=12)["pixel_values"], once["pixel_values"][4:])


def test_without_changes_it_is_the_image_normalised(images):
    made = batch(images, NOTHING)
    rows = draws(images)
    raw = torch.stack([rows[number]["pixel_values"] for number in range(16)]).double() / 255
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (images.info.mean, images.info.deviation))
    torch.testing.assert_close(made["pixel_values"].double(), (raw - mean) / deviation, rtol=1e-5, atol=1e-5)
    assert made["labels"].tolist() == [rows[number]["labels"] for number in range(16)]


def test_flips_turn_each_image_or_leave_it(images):
    plain, flipped = (batch(images, replace(NOTHING, flip=flip))["pixel_values"] for flip in (0.0, 0.5))
    same = (plain == flipped).flatten(1).all(1)
    turned = (plain.flip(-1) == flipped).flatten(1).all(1)
    assert (same | turned).all()
    assert same.any()
    assert turned.any()


def test_rand_augment_draws_operations_for_each_image(images):
    rows = draws(images)
    same = [rows[0]] * 16
    made = ImageCollator(images.info, replace(NOTHING, rand_augment=9), 0)(same)["pixel_values"]
    assert len({image.numpy().tobytes() for image in made}) > 4


def test_erasing_blanks_a_rectangle(images):
    plain, erased = (batch(images, replace(NOTHING, erasing=p))["pixel_values"] for p in (0.0, 1.0))
    black = -torch.tensor(images.info.mean) / torch.tensor(images.info.deviation)
    for before, after in zip(plain, erased, strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        torch.testing.assert_close(after[:, changed], black[:, None].expand(-1, int(changed.sum())))


def test_crops_keep_the_share_and_the_ratio_asked_for():
    for width, height in ((40, 40), (60, 30)):
        for draw in range(200):
            left, top, right, bottom = augmentation._crop((width, height), 0.3, np.random.default_rng(draw))
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            wide, tall = right - left, bottom - top
            if (wide, tall) != (min(width, height),) * 2:
                assert 0.3 - 1e-9 <= wide * tall / (width * height) <= 1 + 1e-9
                assert 3 / 4 - 1e-9 <= wide / tall <= 4 / 3 + 1e-9


def test_an_evaluation_sees_the_middle_of_an_image_of_another_size(tmp_path):
    folder = write_images(tmp_path / "data", size=(64, 96))
    picture = Image.new("RGB", (96, 64), (0, 0, 0))
    picture.paste((250, 250, 250), (20, 4, 76, 60))  # 56 × 56 in the middle: 0.875 of the shorter side
    for path in sorted(folder.rglob("*.png")):
        picture.save(path)
    chosen = ImageSettings(data=str(folder))
    images = prepare_images(chosen, size=16, channels=3, cache=tmp_path / "cache")
    seen = CentreCrops(images.held_out, 16)[0]["pixel_values"]
    assert seen.shape == (3, 16, 16)
    assert seen[:, 1:-1, 1:-1].min() > 240
    assert seen.min() > 200  # at the edge the resizing reaches over it


def test_mixing_keeps_the_sum_of_labels_and_the_shares_of_pixels():
    torch.manual_seed(0)
    pixels = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 16, 16).clone()  # image i is all i, and of class i
    for mix in (blended, pasted):
        for _ in range(20):
            found, labels = mixed(mix, 0.8, pixels, torch.arange(6), 6)
            torch.testing.assert_close(labels.sum(1), torch.ones(6))
            expected = labels @ torch.arange(6.0)
            torch.testing.assert_close(found.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-4)


def test_pasted_is_a_rectangle_of_the_other():
    first, second = torch.zeros(1, 1, 20, 20), torch.ones(1, 1, 20, 20)
    with drawn(3):
        found, share = pasted(first, second, 0.75)
    rows, columns = found[0, 0].any(1).nonzero(), found[0, 0].any(0).nonzero()
    assert found[0, 0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert share == 1 - found.mean().item()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop": 0.0}, r"crop must lie in \(0, 1\]"),
        ({"flip": 1.5}, r"flip must lie in \[0, 1\]"),
        ({"rand_augment": 31}, "rand-augment must lie in 0 … 30"),
        ({"mixup": -1.0}, "mixup must be 0 or more"),
        ({"label_smoothing": 1.0}, r"label-smoothing must lie in \[0, 1\)"),
        ({"erasing": -0.1}, r"erasing must lie in \[0, 1\]"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings, said):
    with pytest.raises(SettingsError, match=said):
        AugmentSettings(**settings)


def test_without_kornia_flips_are_refused_and_crops_work(images, monkeypatch):
    monkeypatch.setattr(augmentation, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"need the package kornia; run pip install"):
        check_augmentation(AugmentSettings())
    check_augmentation(replace(NOTHING, crop=0.5, mixup=0.8))


def test_rand_augment_changes_grey_images_too(images):
    grey = ImageCollator(
        replace(images.info, channels=1, mean=(0.5,), deviation=(0.25,)), AugmentSettings(rand_augment=9), 0
    )
    rows = [
        {"pixel_values": torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8), "labels": 0, "draw": draw}
        for draw in range(6)
    ]
    assert grey(rows)["pixel_values"].shape == (6, 1, 8, 8)
    assert grey(rows)["pixel_values"].isfinite().all()
