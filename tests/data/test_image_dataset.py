"""Images: what is read, split, left out and refused."""

from __future__ import annotations

import gzip
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mixln.data import image_dataset
from mixln.data.decoding import image_files
from mixln.data.image_dataset import FASHION, prepare_images
from mixln.data.settings import ImageSettings
from mixln.errors import DataError, SettingsError
from tests.data.image_files import COLOURS, write_images


def prepared(data, tmp_path, *, size=8, channels=3, **settings):
    """The images of a folder, prepared for a model."""
    chosen = ImageSettings(data=str(data), **settings)
    return prepare_images(chosen, size=size, channels=channels, cache=tmp_path / "cache")


def test_a_folder_of_classes_is_split_evenly_class_by_class(tmp_path):
    images = prepared(write_images(tmp_path / "data"), tmp_path, held_out=0.2)
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
    images = prepared(folder, tmp_path)
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
    images = prepared(tmp_path / "data", tmp_path)
    assert (images.info.train_images, images.info.held_out_images) == (15, 6)


def test_images_of_another_size_stay_files_and_keep_theirs(tmp_path):
    images = prepared(write_images(tmp_path / "data", size=(12, 9)), tmp_path)
    assert images.train.pixels is None
    assert images.train.picture(0).size == (9, 12)
    ready = prepared(write_images(tmp_path / "ready"), tmp_path)
    assert ready.train.pixels is not None


def test_unreadable_and_truncated_images_are_left_out_counted_and_named(tmp_path, news):
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
        news.clear()
        images = prepared(folder, tmp_path, unreadable=0.1)
        assert images.info.unreadable == 2
        assert images.info.train_images + images.info.held_out_images == 28
        (line,) = (line for line in news.messages if "unreadable" in line)
        assert "images: skipped 2 unreadable: " in line
        assert "00.png" in line
        assert "01.png" in line
    with pytest.raises(DataError, match=r"more than the share of 0\.05"):
        prepared(folder, tmp_path, unreadable=0.05)


@pytest.mark.parametrize(("channels", "kind", "mode"), [(3, "colour", "RGB"), (1, "grey", "L")])
def test_other_channels_are_converted_and_said(tmp_path, channels, kind, mode, news):
    folder = write_images(tmp_path / "data")
    for name in COLOURS:
        with Image.open(folder / name / "00.png") as image:
            grey = image.convert("L")
        grey.save(folder / name / "00.png")
    images = prepared(folder, tmp_path, channels=channels)
    converted = 3 if channels == 3 else 27
    more = "; --num-channels 3 keeps colours" if channels == 1 else ""
    assert f"images: converted {converted} to {kind}, as the model requires{more}" in news.messages
    assert images.train.picture(0).mode == mode
    assert len(images.info.mean) == channels


def test_changed_files_are_not_taken_from_the_cache(tmp_path, news):
    folder = write_images(tmp_path / "data")
    first = prepared(folder, tmp_path)
    assert news.messages == ["images: reading 30"]
    news.clear()
    again = prepared(folder, tmp_path)
    assert (again.folder, news.messages) == (first.folder, [])
    shutil.copy(folder / "red" / "00.png", folder / "red" / "99.png")
    assert prepared(folder, tmp_path).info.train_images == 28


def test_what_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    one = write_images(tmp_path / "one")
    shutil.rmtree(one / "red")
    shutil.rmtree(one / "blue")
    (tmp_path / "empty").mkdir()
    for data, rule in {
        tmp_path
        / "missing": "is not a folder of images; give a folder, a hub data set, or one of fashion-mnist, digits",
        tmp_path / "one": "must have images of at least two classes, got green",
        tmp_path / "empty": "has no images in subfolders named by class",
        tmp_path / "flat": "images",
    }.items():
        with pytest.raises(DataError, match=rule) as error:
            prepared(data, tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match="num_channels of the model must be 1 or 3 for images, got 4"):
        prepared(tmp_path / "one", tmp_path, channels=4)


def test_a_held_out_part_with_other_classes_is_refused(tmp_path):
    write_images(tmp_path / "data" / "train")
    write_images(tmp_path / "data" / "val")
    (tmp_path / "data" / "val" / "red").rename(tmp_path / "data" / "val" / "pink")
    with pytest.raises(DataError, match="has held-out images of pink but no training images of it"):
        prepared(tmp_path / "data", tmp_path)


LAYOUTS = {
    "classes": ("b/2.png", "b/10.png", "a/x.JPG", "a/y.jpeg", "a-b/z.png", "a/deep/c.png", "__special/d.png"),
    "parts": ("train/b/2.png", "val/a/1.png", "train/a/7.png", "test/b/0.png", "train/deep/c/8.png", "other/d/9.png"),
    "names of parts": (
        "my-train/b/2.png",
        "train2/a/1.png",
        "train/a/9.png",
        "valid_1/a/1.png",
        "x.training.y/c/1.png",
    ),
    "names of files": ("a/train_1.png", "b/my.train.png", "a/1.test.png", "b/dev-3.png", "c/0.png"),
    "no parts": ("trains/1.png", "testing1/1.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_classes_and_order_are_those_of_the_datasets_library(tmp_path, layout):
    import datasets

    for name in LAYOUTS[layout]:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / name)
    theirs = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "data"), drop_labels=False, cache_dir=str(tmp_path / "cache")
    )
    files = [
        path for path in image_files(tmp_path / "data", (".png", ".jpg", ".jpeg")) if "__special" not in path.parts
    ]
    ours = image_dataset._parts_of(tmp_path / "data", files)
    assert list(ours) == list(theirs)
    for part, rows in theirs.items():
        found = rows.cast_column("image", datasets.Image(decode=False))
        assert [str(path) for path in ours[part]] == [row["image"]["path"] for row in found]
    if "train" in theirs:
        read = image_dataset._folder(tmp_path / "data").read()
        assert read["train"].features["label"].names == theirs["train"].features["label"].names
        assert read["train"]["label"] == theirs["train"]["label"]
        assert len(read["train"]) == len(ours["train"])


def test_the_digits_come_with_scikit_learn(tmp_path):
    pytest.importorskip("sklearn")
    images = prepared("digits", tmp_path, channels=1)
    assert images.info.classes == tuple("0123456789")
    assert images.info.train_images + images.info.held_out_images == 1797
    assert images.train.pixels.shape[1:] == (8, 8, 1)
    assert images.train.pixels.max() == 255


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_sixty_thousand_pieces_of_clothing(tmp_path):
    images = prepared("fashion-mnist", tmp_path, size=28, channels=1)
    assert (images.info.train_images, images.info.held_out_images) == (60_000, 10_000)
    assert images.train.pixels.shape == (60_000, 28, 28, 1)
    assert np.bincount(images.train.labels).tolist() == [6000] * 10
    assert images.info.mean[0] == pytest.approx(0.2860, abs=0.003)  # as is widely published for all 60,000


def test_a_damaged_idx_file_is_one_line(tmp_path, monkeypatch):
    for name in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))
    monkeypatch.setattr(image_dataset, "FASHION", tmp_path)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read: .*; install its package again"):
        prepared("fashion-mnist", tmp_path / "out", channels=1)


def write_png(path, width, height):
    """An image of one colour, made without holding its pixels in memory; its size is in its header."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


def flipped_gif(path):
    """One bit of its width is another."""
    Image.new("P", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[7] ^= 0x80
    at = content.index(b",") + 6  # the width of its frame
    content[at] ^= 0x80
    content[9] ^= 0x40
    path.write_bytes(content)


def postscript(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


TRAPS = {
    "12,000 × 12,000": lambda path: write_png(path, 12_000, 12_000),
    "more than 179 million": lambda path: write_png(path, 16_000, 16_000),
    "a flipped bit": flipped_gif,
    "a program": postscript,
    "all header": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "sparse": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_an_image_that_is_a_trap_is_unreadable(tmp_path, trap, news):
    folder = write_images(tmp_path / "data")
    name = "trap.gif" if trap == "a flipped bit" else "trap.png"
    TRAPS[trap](folder / "red" / name)
    images = prepared(folder, tmp_path, unreadable=0.5)
    assert (images.info.unreadable, images.info.train_images + images.info.held_out_images) == (1, 30)
    assert any("skipped 1 unreadable: " in line and name in line for line in news.messages)
    with pytest.raises(
        DataError, match=r"1 of 31 images cannot be read, more than the share of 0\.01 .*trap\."
    ) as caught:
        prepared(folder, tmp_path / "more")
    assert "\n" not in str(caught.value)


def test_the_moments_of_a_large_image_take_little_memory(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "data", size=(24, 9))
    before = prepared(folder, tmp_path / "whole")
    monkeypatch.setattr(image_dataset, "AT_ONCE", 7)
    after = prepared(folder, tmp_path / "bit by bit")
    assert after.info.mean == pytest.approx(before.info.mean, rel=1e-12)
    assert after.info.deviation == pytest.approx(before.info.deviation, rel=1e-12)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png", b"$HOME [1].png"])
def test_names_of_images_are_one_line_each_and_cost_no_image(tmp_path, name, news):
    folder = write_images(tmp_path / "data")
    odd = os.path.join(os.fsencode(folder / "red"), name)
    os.rename(folder / "red" / "03.png", odd)
    images = prepared(folder, tmp_path)
    assert images.info.train_images + images.info.held_out_images == 30
    with open(odd, "wb") as file:
        file.write(b"no image")
    images = prepared(folder, tmp_path, unreadable=0.5)
    assert images.info.unreadable == 1
    (line,) = (line for line in news.messages if "unreadable" in line)
    assert line.startswith("images: skipped 1 unreadable: ")
    assert line.isprintable()
    assert len((images.folder / "unreadable.txt").read_text("utf-8").splitlines()) == 1


def test_names_of_classes_and_folders_are_one_line_each(tmp_path):
    folder = write_images(tmp_path / "one\nfolder")
    (folder / "red").rename(folder / "two\nlines")
    os.rename(folder / "blue", os.path.join(os.fsencode(folder), b"caf\xe9"))
    images = prepared(folder, tmp_path)
    assert sorted(images.info.classes) == ["caf\\xe9", "green", "two\\nlines"]
    assert images.info.description == "one\\nfolder (local)"


def test_only_regular_images_inside_the_folder_are_read(tmp_path):
    folder = write_images(tmp_path / "data")
    outside = write_images(tmp_path / "other")
    wrong = {
        "x.png must be a regular file, got a named pipe": lambda: os.mkfifo(folder / "red" / "x.png"),
        "x.png is a link to .*, outside ": lambda: (folder / "red" / "x.png").symlink_to(outside / "red" / "00.png"),
        "x.png is a link, and links to folders": lambda: (folder / "x.png").symlink_to(outside),
    }
    for rule, make in wrong.items():
        make()
        with pytest.raises(DataError, match=rule):
            prepared(folder, tmp_path)
        with pytest.raises(DataError, match=rule):
            image_files(folder, (".png",))
        for path in (folder / "red" / "x.png", folder / "x.png"):
            path.unlink(missing_ok=True)
    (folder / "red" / "x.png").symlink_to("00.png")
    assert prepared(folder, tmp_path).info.train_images == 28


def test_hidden_folders_archives_lists_and_our_runs_are_no_images(tmp_path, news):
    folder = write_images(tmp_path / "data")
    before = prepared(folder, tmp_path)
    run = folder / "run"
    write_images(run / "train")
    (run / "experiment.json").write_text('{"schema": 1, "settings": {}, "grid": {}}')
    news.clear()
    after = prepared(folder, tmp_path)
    assert (after, news.messages) == (before, [])  # from the cache: nothing has changed
    shutil.copytree(folder / "red", folder / ".ipynb_checkpoints")
    shutil.make_archive(str(folder / "more"), "zip", folder / "red")
    (folder / "metadata.jsonl").write_text('{"file_name": "../other.png"}\n')
    after = prepared(folder, tmp_path)
    assert (after.info.train_images, after.info.classes) == (27, ("blue", "green", "red"))
