"""Images: what is read, split, left out and refused."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
from PIL import Image

from mixln.data import pictures
from mixln.data.pictures import FASHION, prepare_images
from mixln.data.settings import ImageSettings
from mixln.errors import DataError, SettingsError
from tests.data.pictures import COLOURS, write_images


def prepared(data, tmp_path, *, size=8, channels=3, **settings):
    """The images and what was said."""
    said: list[str] = []
    chosen = ImageSettings(data=str(data), **settings)
    return prepare_images(chosen, size=size, channels=channels, cache=tmp_path / "cache", say=said.append), said


def test_a_folder_of_classes_is_split_evenly_class_by_class(tmp_path):
    images, _ = prepared(write_images(tmp_path / "data"), tmp_path, held_out=0.2)
    assert images.info.classes == ("blue", "green", "red")
    assert (images.info.train_images, images.info.held_out_images) == (24, 6)
    assert np.bincount(images.held_out.labels).tolist() == [2, 2, 2]
    assert np.bincount(images.train.labels).tolist() == [8, 8, 8]
    assert images.info.majority == pytest.approx(1 / 3)
    every = {images.train.picture(i).tobytes() for i in range(24)} | {
        images.held_out.picture(i).tobytes() for i in range(6)
    }
    assert len(every) == 30


def test_pixels_labels_and_moments_are_those_of_the_files(tmp_path):
    folder = write_images(tmp_path / "data")
    images, _ = prepared(folder, tmp_path)
    seen = []
    for index in range(len(images.train)):
        pixels = np.asarray(images.train.picture(index))
        name = images.info.classes[images.train.labels[index]]
        assert np.abs(pixels - np.array(COLOURS[name])).max() <= 30
        assert any(np.array_equal(pixels, np.asarray(Image.open(path))) for path in (folder / name).iterdir())
        seen.append(pixels)
    values = np.stack(seen).reshape(-1, 3) / 255
    assert images.info.mean == pytest.approx(values.mean(0))
    assert images.info.deviation == pytest.approx(values.std(0))


def test_train_and_val_folders_are_taken_as_they_are(tmp_path):
    write_images(tmp_path / "data" / "train", count=5)
    write_images(tmp_path / "data" / "val", count=2, seed=1)
    images, _ = prepared(tmp_path / "data", tmp_path)
    assert (images.info.train_images, images.info.held_out_images) == (15, 6)


def test_images_of_another_size_stay_files_and_keep_theirs(tmp_path):
    images, _ = prepared(write_images(tmp_path / "data", size=(12, 9)), tmp_path)
    assert images.train.pixels is None
    assert images.train.picture(0).size == (9, 12)
    ready, _ = prepared(write_images(tmp_path / "ready"), tmp_path)
    assert ready.train.pixels is not None


def test_unreadable_and_truncated_images_are_left_out_counted_and_named(tmp_path):
    folder = write_images(tmp_path / "data", size=(40, 40))
    (folder / "red" / "00.png").write_bytes(b"no image")
    whole = (folder / "red" / "01.png").read_bytes()
    (folder / "red" / "01.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"2 of 30 images cannot be read, more than the share of 0\.01 that --unreadable"
    ):
        prepared(folder, tmp_path)
    assert not list((tmp_path / "cache").rglob("info.json"))
    for _ in range(2):  # the second time from the cache
        images, said = prepared(folder, tmp_path, unreadable=0.1)
        assert images.info.unreadable == 2
        assert images.info.train_images + images.info.held_out_images == 28
        (line,) = (line for line in said if "cannot be read" in line)
        assert "images: 2 cannot be read and are left out: " in line
        assert "00.png" in line
        assert "01.png" in line
    with pytest.raises(DataError, match=r"more than the share of 0\.05"):
        prepared(folder, tmp_path, unreadable=0.05)


@pytest.mark.parametrize(("channels", "kind", "mode"), [(3, "colour", "RGB"), (1, "grey", "L")])
def test_other_channels_are_converted_and_said(tmp_path, channels, kind, mode):
    folder = write_images(tmp_path / "data")
    for name in COLOURS:
        with Image.open(folder / name / "00.png") as image:
            grey = image.convert("L")
        grey.save(folder / name / "00.png")
    images, said = prepared(folder, tmp_path, channels=channels)
    converted = 3 if channels == 3 else 27
    more = "; --num-channels 3 keeps colours" if channels == 1 else ""
    assert f"images: {converted} had other channels than the model's {channels} and became {kind}{more}" in said
    assert images.train.picture(0).mode == mode
    assert len(images.info.mean) == channels


def test_changed_files_are_not_taken_from_the_cache(tmp_path):
    folder = write_images(tmp_path / "data")
    first, said = prepared(folder, tmp_path)
    assert said == ["images: looking at 30"]
    again, said = prepared(folder, tmp_path)
    assert (again.folder, said) == (first.folder, [])
    shutil.copy(folder / "red" / "00.png", folder / "red" / "99.png")
    assert prepared(folder, tmp_path)[0].info.train_images == 28


def test_what_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    one = write_images(tmp_path / "one")
    shutil.rmtree(one / "red")
    shutil.rmtree(one / "blue")
    (tmp_path / "empty").mkdir()
    for data, said in {
        tmp_path / "missing": "is no folder of images; give a folder, a hub data set, or one of fashion-mnist, digits",
        tmp_path / "one": "must have images of at least two classes to tell apart, got green",
        tmp_path / "empty": "holds no images in subfolders that are their classes",
        tmp_path / "flat": "images",
    }.items():
        with pytest.raises(DataError, match=said) as error:
            prepared(data, tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match="num_channels of the model must be 1 or 3 for images, got 4"):
        prepared(tmp_path / "one", tmp_path, channels=4)


def test_a_held_out_part_with_other_classes_is_refused(tmp_path):
    write_images(tmp_path / "data" / "train")
    write_images(tmp_path / "data" / "val")
    (tmp_path / "data" / "val" / "red").rename(tmp_path / "data" / "val" / "pink")
    with pytest.raises(DataError, match="holds out images of pink and has none to train on"):
        prepared(tmp_path / "data", tmp_path)


def test_the_digits_come_with_scikit_learn(tmp_path):
    pytest.importorskip("sklearn")
    images, _ = prepared("digits", tmp_path, channels=1)
    assert images.info.classes == tuple("0123456789")
    assert images.info.train_images + images.info.held_out_images == 1797
    assert images.train.pixels.shape[1:] == (8, 8, 1)
    assert images.train.pixels.max() == 255


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_sixty_thousand_pieces_of_clothing(tmp_path):
    images, _ = prepared("fashion-mnist", tmp_path, size=28, channels=1)
    assert (images.info.train_images, images.info.held_out_images) == (60_000, 10_000)
    assert images.train.pixels.shape == (60_000, 28, 28, 1)
    assert np.bincount(images.train.labels).tolist() == [6000] * 10
    assert images.info.mean[0] == pytest.approx(0.2860, abs=0.003)  # as is widely published for all 60,000


def test_a_damaged_idx_file_is_one_line(tmp_path, monkeypatch):
    for name in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))
    monkeypatch.setattr(pictures, "FASHION", tmp_path)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read: .*; install its package again"):
        prepared("fashion-mnist", tmp_path / "out", channels=1)
