"""Labelled images for training: found, verified, split, and cached under the hash of all inputs.

<cache>/images/<key>/train/       rows `image` (bytes or path) and `label`, as datasets' Arrow; likewise held_out/
<cache>/images/<key>/train.npy    the decoded pixels (N, S, S, C), if all images have the model's size
<cache>/images/<key>/images.json  written last
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixln.data.decoding import MOST_BYTES, image_files, open_image
from mixln.data.documents import path_of
from mixln.data.listing import all_files, printable
from mixln.data.packing import unigram_loss
from mixln.data.settings import ImageSettings
from mixln.errors import DataError, SettingsError, first_line
from mixln.files import write_atomic
from mixln.quiet import quiet
from mixln.records import unreadable
from mixln.runs.folder import RunFolder, RunKind
from mixln.runs.schema import Schema

if TYPE_CHECKING:
    from datasets import ClassLabel, Dataset
    from PIL.Image import Image

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of reading and splitting, part of the cache key; increase it whenever they change."""
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Folder of Debian's package dataset-fashion-mnist."""
FASHION_HUB = "zalando-datasets/fashion_mnist"
IDX_BYTES = 2**26
"""Largest unpacked IDX file, bytes (64 MiB); the largest of Fashion-MNIST has 47 million."""
TRAIN, HELD_OUT = "train", "held_out"
NAMED = 3
"""Number of unreadable images named in a message; unreadable.txt lists all."""
SAMPLE = 10_000
"""Largest number of images from which mean and standard deviation are estimated."""
AT_ONCE = 2**22
"""Pixels squared at a time; limits memory to 32 MiB per channel in float64."""
MODES = {1: "L", 3: "RGB"}
"""Number of channels → Pillow's image mode."""


@dataclass(frozen=True, kw_only=True)
class ImagesInfo:
    """Facts about prepared images.

    :param fingerprint: hash of the images and of their preparation.
    :param classes: class names in the order of their labels.
    :param size: height and width of the model's input, pixels.
    :param mean: mean of the training pixels per channel, in [0, 1]; `deviation` is the standard deviation.
    :param unreadable: number of images that could not be read and were skipped.
    :param converted: number of images converted to the model's channels.
    :param majority: accuracy of always predicting the most frequent training class, as a share of the held-out images;
        `frequency_loss` is the loss of predicting the class frequencies, nats per image.
    """

    description: str
    fingerprint: str
    classes: tuple[str, ...]
    size: int
    channels: int
    train_images: int
    held_out_images: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    unreadable: int
    converted: int
    majority: float
    frequency_loss: float

    @property
    def words(self) -> str:
        """Description with the numbers of images and classes."""
        counted = f"{self.train_images:,} training and {self.held_out_images:,} held-out images"
        return f"{self.description}; {counted} of {len(self.classes)} classes"


INFO = Schema(kind="images", file="images.json", record=ImagesInfo, former="info.json")
CACHED = RunKind(noun="images", result=INFO)
"""Images in the cache, in a folder named by the hash of their request."""


@dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """Prepared images on disk."""

    folder: Path
    info: ImagesInfo

    @cached_property
    def train(self) -> ImageDataset:
        return ImageDataset.load(self.folder, TRAIN, self.info)

    @cached_property
    def held_out(self) -> ImageDataset:
        return ImageDataset.load(self.folder, HELD_OUT, self.info)

    @classmethod
    def load(cls, folder: Path) -> PreparedImages:
        """Opens what :func:`prepare_images` wrote.

        :raises DataError: if it is corrupt.
        """
        path = INFO.path(folder)
        try:
            return cls(folder=folder, info=INFO.read(path))
        except (OSError, ValueError) as error:
            raise DataError(unreadable(path, error, "delete that folder")) from error


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """The training or the held-out part of prepared images.

    :param rows: columns `image` and `label`.
    :param pixels: memory-mapped pixels (N, S, S, C) uint8, if all images have the model's size; else `None`.
    """

    rows: Dataset
    pixels: np.ndarray | None
    labels: np.ndarray
    mode: str

    @classmethod
    def load(cls, folder: Path, part: str, info: ImagesInfo) -> ImageDataset:
        import datasets

        rows: Any = datasets.load_from_disk(str(folder / part))
        ready = folder / f"{part}.npy"
        pixels = np.load(ready, mmap_mode="r", allow_pickle=False) if ready.is_file() else None
        return cls(rows=rows, pixels=pixels, labels=np.array(rows["label"]), mode=MODES[info.channels])

    def __len__(self) -> int:
        return len(self.rows)

    def picture(self, index: int) -> Image:
        """One image in its original size, with the model's channels.

        :raises DataError: if it can no longer be read.
        """
        from PIL import Image

        if self.pixels is not None:
            array = self.pixels[index]
            return Image.fromarray(array[..., 0] if self.mode == "L" else array)
        entry = self.rows[index]["image"]
        try:
            return _opened(entry).convert(self.mode)
        except (OSError, ValueError) as error:
            raise DataError(
                f"image {_name(entry)} can no longer be read: {first_line(error)}; restore it, or delete the cache"
            ) from error


def prepare_images(settings: ImageSettings, *, size: int, channels: int, cache: Path) -> PreparedImages:
    """Finds, verifies and splits the images that `settings` names, or returns them from the cache.

    :param size: height and width of the model's input, pixels.
    :param channels: channels of the model's input, 1 or 3.
    :param cache: folder of the cache, created if missing.
    :raises DataError: if there are no images, fewer than two classes, or too many unreadable images.
    """
    import datasets  # before `quiet`, which silences it  # noqa: F401

    if channels not in MODES:
        raise SettingsError(f"num_channels of the model must be 1 or 3 for images, got {channels}")
    source = _find(settings)
    request = {
        "format": FORMAT,
        "of": source.identity,
        "held_out": settings.held_out,
        "size": size,
        "channels": channels,
    }
    key = hashlib.sha256(json.dumps(request).encode()).hexdigest()[:20]
    folder = cache / "images" / key

    def make(target: Path) -> ImagesInfo:
        with quiet():
            return _prepare(source, settings, size, channels, key, target)

    RunFolder(folder, CACHED).fill(make)
    images = PreparedImages.load(folder)
    info = images.info
    if info.unreadable:
        names = (folder / "unreadable.txt").read_text("utf-8").splitlines()
        more = f" and {len(names) - NAMED} more, see {folder / 'unreadable.txt'}" if len(names) > NAMED else ""
        log.warning(f"images: skipped {len(names)} unreadable: {', '.join(names[:NAMED])}{more}")
        # Also for cached images: `unreadable` is not part of the cache key.
        _refuse_many(len(names), info.train_images + info.held_out_images + len(names), settings, names)
    if info.converted:
        kind = {"L": "grey", "RGB": "colour"}[MODES[channels]]
        keep = "; --num-channels 3 keeps colours" if channels == 1 else ""
        log.info(f"images: converted {info.converted:,} to {kind}, as the model requires{keep}")
    return images


def same_images(
    settings: ImageSettings,
    fingerprint: str,
    *,
    size: int,
    channels: int,
    cache: Path,
) -> PreparedImages:
    """The images of an earlier run, from the cache or prepared again.

    :param fingerprint: their fingerprint in that run.
    :raises DataError: if they are not in the cache and have changed since.
    """
    cached = cache / "images" / fingerprint
    if fingerprint and RunFolder(cached, CACHED).has_result:
        return PreparedImages.load(cached)
    images = prepare_images(settings, size=size, channels=channels, cache=cache)
    if images.info.fingerprint != fingerprint:
        raise DataError(
            f"data {settings.data} has changed since the model was trained on it, so the held-out images are not known; name other "
            "images with --data"
        )
    return images


@dataclass(frozen=True, kw_only=True)
class _ImageSource:
    """A source of images.

    :param identity: JSON value that changes when the images do; part of the cache key.
    :param read: returns part → rows `image` and `label`; the held-out part only if the source has one.
    """

    description: str
    identity: Any
    read: Callable[[], dict[str, Dataset]]


def _find(settings: ImageSettings) -> _ImageSource:
    if settings.data in EMBEDDED:
        return EMBEDDED[settings.data]()
    path = path_of(settings.data)
    if path.is_dir():
        return _folder(path)
    if path.exists() or settings.data.startswith((".", "/", "~")):
        raise DataError(
            f"data {settings.data} is not a folder of images; give a folder, a hub data set, or one of {', '.join(EMBEDDED)}"
        )
    return _hub(settings.data)


def _fashion() -> _ImageSource:
    if not FASHION.is_dir():
        return _hub(FASHION_HUB, "fashion-mnist", "; or install Debian's package dataset-fashion-mnist")
    files = {name: FASHION / name for name in sorted(os.listdir(FASHION)) if name.endswith(".gz")}
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    return _ImageSource(
        description="Fashion-MNIST (Debian's dataset-fashion-mnist, MIT)",
        identity=["fashion-mnist", {name: path.stat().st_size for name, path in files.items()}],
        read=lambda: {
            part: _encoded(
                _idx(FASHION / f"{name}-images-idx3-ubyte.gz"), _idx(FASHION / f"{name}-labels-idx1-ubyte.gz"), names
            )
            for part, name in ((TRAIN, "train"), (HELD_OUT, "t10k"))
        },
    )


def _digits() -> _ImageSource:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("data digits needs the package scikit-learn; run pip install scikit-learn") from error

    def read() -> dict[str, Dataset]:
        digits: Any = load_digits()  # pixel values 0 to 16
        return {TRAIN: _encoded((digits.images * (255 / 16)).astype(np.uint8), digits.target, tuple("0123456789"))}

    described = f"handwritten digits (package scikit-learn {version('scikit-learn')}, BSD; images: UCI)"
    return _ImageSource(description=described, identity=["digits", version("scikit-learn")], read=read)


EMBEDDED: dict[str, Callable[[], _ImageSource]] = {"fashion-mnist": _fashion, "digits": _digits}
"""Name of a built-in data set → its source."""


PARTS = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Part of the data → words in the names of its folders or files, as in the datasets library."""


def _folder(path: Path) -> _ImageSource:
    """Source for a folder with one subfolder per class, or with train and val (or validation, or test) folders of this form."""

    def read() -> dict[str, Dataset]:
        import datasets
        from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

        files = [
            file
            for file in image_files(path, ImageFolder.EXTENSIONS)
            if not any(part.startswith("__") for part in file.relative_to(path).parts)
        ]
        if not files:
            raise DataError(f"data {path} has no images in subfolders named by class; see docs/vision.md")
        parts = _parts_of(path, files)
        names = sorted({file.parent.name for part in parts.values() for file in part})
        labels = {name: label for label, name in enumerate(names)}
        features = datasets.Features(
            {
                "image": datasets.Image(decode=False),
                "label": datasets.ClassLabel(names=[printable(name) for name in names]),
            }
        )
        rows = {
            part: datasets.Dataset.from_dict(
                {"image": list(map(_entry, members)), "label": [labels[file.parent.name] for file in members]},
                features=features,
            )
            for part, members in parts.items()
        }
        return _parts(rows, f"folder {path}")

    listed = hashlib.sha256(
        "".join(
            f"{file.relative_to(path)} {file.stat().st_size} {file.stat().st_mtime_ns}\n" for file in all_files(path)
        ).encode("utf-8", "surrogateescape")
    )
    return _ImageSource(
        description=f"{printable(path.name)} (local)", identity=[str(path.resolve()), listed.hexdigest()], read=read
    )


def _entry(file: Path) -> dict[str, Any]:
    """The `image` entry of a row: its path, or its bytes if the path is not UTF-8, which Arrow cannot store."""
    name = os.path.abspath(file)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return {"bytes": file.read_bytes() if file.stat().st_size <= MOST_BYTES else b"", "path": printable(name)}
    return {"bytes": None, "path": name}


def _parts_of(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Assigns files to parts by the names of their folders, else by their own names; if neither matches, all are for training."""

    def members(names_of: Callable[[Path], tuple[str, ...]], words: tuple[str, ...]) -> list[Path]:
        ranks = {file: min((_rank(name, words) for name in names_of(file)), default=NO_RANK) for file in files}
        return sorted((file for file in files if ranks[file] < NO_RANK), key=lambda file: (ranks[file], str(file)))

    for names_of in (lambda file: file.relative_to(folder).parts[:-1], lambda file: (file.name,)):
        parts = {part: members(names_of, words) for part, words in PARTS.items()}
        if any(parts.values()):
            return {part: chosen for part, chosen in parts.items() if chosen}
    return {TRAIN: sorted(files, key=str)}


NO_RANK = (9, 9)
"""Rank of a name that contains none of the words."""


def _rank(name: str, words: tuple[str, ...]) -> tuple[int, int]:
    """Sort key of a name as in the datasets library: index of the word that it contains, and the word's position in the name
    (complete, beginning, end, middle)."""
    forms = ("{}", "{}[-._ 0-9].*", ".*[-._ 0-9]{}", ".*[-._ 0-9]{}[-._ 0-9].*")
    matches = (
        (number, form)
        for number, word in enumerate(words)
        for form, pattern in enumerate(forms)
        if word in name and re.fullmatch(pattern.format(word), name, re.DOTALL)
    )
    return next(matches, NO_RANK)


def _hub(name: str, alias: str = "", remedy: str = "") -> _ImageSource:
    """Source for a hub data set.

    :param alias: its name in `--data`, if different.
    :param remedy: added to the remedy in the error message.
    """
    import datasets

    try:
        with quiet():
            path, _, config = name.partition(":")
            builder: Any = datasets.load_dataset_builder(path, config or None)
    except Exception as error:  # the hub client raises many types: no network, no such data set, no permission
        raise DataError(
            f"data {alias or name!r} is not a local folder and cannot be loaded from the hub: {first_line(error)}; "
            f"check the name and the network{remedy}"
        ) from error

    def read() -> dict[str, Dataset]:
        builder.download_and_prepare()
        return _parts(builder.as_dataset(), f"hub data set {name}")

    return _ImageSource(description=f"{printable(name)} (hub)", identity=["hub", name, builder.hash], read=read)


def _parts(splits: Any, where: str) -> dict[str, Dataset]:
    """The training and held-out rows, with columns `image` and `label`.

    :param splits: name of a split → rows, as loaded by datasets.
    :param where: subject of the error message.
    :raises DataError: unless there is exactly one column of images and one of classes.
    """
    import datasets

    if TRAIN not in splits:
        raise DataError(f"{where} has no part 'train'; it has: {', '.join(splits)}")
    features = splits[TRAIN].features
    columns = {
        "image": [name for name, kind in features.items() if isinstance(kind, datasets.Image)],
        "label": [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)],
    }
    for column, names in columns.items():
        if len(names) != 1:
            kind = {"image": "images", "label": "classes (a folder for each)"}[column]
            raise DataError(f"{where} must have one column of {kind}, got {len(names)}; it has: {', '.join(features)}")
    held_out = next((name for name in ("validation", "test") if name in splits), None)
    chosen = {TRAIN: splits[TRAIN], **({HELD_OUT: splits[held_out]} if held_out else {})}
    return {
        part: rows.select_columns([columns["image"][0], columns["label"][0]])
        .rename_columns({columns["image"][0]: "image", columns["label"][0]: "label"})
        .cast_column("image", datasets.Image(decode=False))
        for part, rows in chosen.items()
    }


def _idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file.

    Header: two zero bytes, type 8 (unsigned byte), number of dimensions, and the size of each as a big-endian int32.

    :raises DataError: if the file is corrupt or has another type.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(IDX_BYTES + 1)
        if len(data) > IDX_BYTES:
            raise ValueError(f"it unpacks to more than {IDX_BYTES:,} bytes")
        axes = data[3]
        shape = np.frombuffer(data, ">i4", axes, 4)
        if data[:3] != b"\0\0\x08":
            raise ValueError("it does not hold unsigned bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"data {path} cannot be read: {first_line(error)}; install its package again") from error


def _encoded(pixels: np.ndarray, labels: Any, names: tuple[str, ...]) -> Dataset:
    """Rows with PNGs of grey images (N, H, W) uint8."""
    import datasets
    from PIL import Image

    def png(image: np.ndarray) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        return {"bytes": buffer.getvalue(), "path": None}

    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=list(names))}
    )
    rows = {"image": [png(image) for image in pixels], "label": [int(label) for label in labels]}
    return datasets.Dataset.from_dict(rows, features=features)


def _prepare(
    source: _ImageSource,
    settings: ImageSettings,
    size: int,
    channels: int,
    key: str,
    folder: Path,
) -> ImagesInfo:
    parts = source.read()
    label: ClassLabel = parts[TRAIN].features["label"]
    classes = tuple(label.names)
    log.info(f"images: reading {sum(map(len, parts.values())):,}")
    bad, total, converted, ready = [], 0, 0, True
    for part, rows in parts.items():
        checked = list(_checked(rows, MODES[channels]))
        total += len(rows)
        bad += [fault for fault, *_ in checked if fault]
        converted += sum(other for fault, _, other in checked if not fault)
        ready = ready and all(shape == (size, size) for fault, shape, _ in checked if not fault)
        if any(fault for fault, *_ in checked):
            parts[part] = rows.select([index for index, (fault, *_) in enumerate(checked) if not fault])
    _refuse_many(len(bad), total, settings, bad)
    if HELD_OUT not in parts:
        parts = _split(parts[TRAIN], settings.held_out)
    held_out = parts[HELD_OUT]["label"]
    counts = _class_counts(parts[TRAIN]["label"], held_out, classes, settings.data)
    for part, rows in parts.items():
        rows.save_to_disk(str(folder / part))
        if ready:
            np.save(folder / f"{part}.npy", _pixels(rows, MODES[channels], size), allow_pickle=False)
    if bad:
        write_atomic(folder / "unreadable.txt", "\n".join(bad) + "\n")
    mean, deviation = _moments(parts[TRAIN], MODES[channels])
    return ImagesInfo(
        description=source.description,
        fingerprint=key,
        classes=classes,
        size=size,
        channels=channels,
        train_images=len(parts[TRAIN]),
        held_out_images=len(parts[HELD_OUT]),
        mean=mean,
        deviation=deviation,
        unreadable=len(bad),
        converted=converted,
        majority=sum(label == counts.most_common(1)[0][0] for label in held_out) / len(held_out),
        frequency_loss=unigram_loss(np.bincount(parts[TRAIN]["label"], minlength=len(classes)), np.array(held_out)),
    )


def _class_counts(train: list[int], held_out: list[int], classes: tuple[str, ...], data: str) -> Counter[int]:
    """Number of training images of each class.

    :param train: labels of the training images; `held_out` of the held-out images.
    :raises DataError: if there are fewer than two classes, or held-out images of a class without training images.
    """
    counts = Counter(train)
    if len(counts) < 2:
        only = ", ".join(classes[index] for index in counts) or "none"
        raise DataError(f"data {data} must have images of at least two classes, got {only}; see docs/vision.md")
    if untrained := sorted(set(held_out) - set(counts)):
        names = ", ".join(classes[label] for label in untrained)
        raise DataError(
            f"data {data} has held-out images of {names} but no training images of it; give both parts the same classes"
        )
    return counts


def _refuse_many(bad: int, total: int, settings: ImageSettings, names: list[str]) -> None:
    if bad > settings.unreadable * total:
        raise DataError(
            f"data {settings.data}: {bad} of {total} images cannot be read, more than the share of {settings.unreadable:g} that "
            f"--unreadable allows: {', '.join(names[:NAMED])}{', …' if bad > NAMED else ''}; correct or remove them"
        )


def _checked(rows: Dataset, mode: str) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """For each image: its name and error if it cannot be read, else ""; its height and width; whether its mode differs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = rows.map(
        _check,
        fn_kwargs={"mode": mode},
        remove_columns=rows.column_names,
        load_from_cache_file=False,
        num_proc=cores if len(rows) > SAMPLE else None,  # for few images, starting processes takes longer
    )
    for row in results:
        yield row["bad"], (row["height"], row["width"]), row["other"]  # type: ignore[index,call-overload]


def _check(row: dict[str, Any], mode: str) -> dict[str, Any]:
    try:
        image = _opened(row["image"])
    except ValueError as error:
        return {"bad": f"{_name(row['image'])} ({first_line(error)})", "height": 0, "width": 0, "other": False}
    return {"bad": "", "height": image.height, "width": image.width, "other": image.mode != mode}


def _opened(entry: dict[str, Any]) -> Image:
    """:raises ValueError: if it cannot be read."""
    return open_image(entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]))


def _name(entry: dict[str, Any]) -> str:
    return printable(entry["path"] or "without a name")


def _split(rows: Dataset, share: float) -> dict[str, Dataset]:
    """Holds out a share of each class, spread evenly over its images, at least one image."""
    held: set[int] = set()
    labels = np.array(rows["label"])
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(len(of_class) * share))
        held.update(int(of_class[int((number + 0.5) * len(of_class) / count)]) for number in range(count))
    return {
        TRAIN: rows.select([index for index in range(len(rows)) if index not in held]),
        HELD_OUT: rows.select(sorted(held)),
    }


def _pixels(rows: Dataset, mode: str, size: int) -> np.ndarray:
    """Pixels (N, S, S, C) uint8 of images that all have this size."""
    images = [np.asarray(_opened(entry).convert(mode)) for entry in rows["image"]]
    return np.stack(images).reshape(len(images), size, size, -1)


def _moments(rows: Dataset, mode: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels per channel, in [0, 1], over at most :data:`SAMPLE` evenly spread images."""
    count = min(len(rows), SAMPLE)
    total, squares, pixels = 0.0, 0.0, 0
    for number in range(count):
        image = np.asarray(_opened(rows[number * len(rows) // count]["image"]).convert(mode))
        values = image.reshape(image.shape[0] * image.shape[1], -1)
        for start in range(0, len(values), AT_ONCE):
            channels = values[start : start + AT_ONCE].astype(np.float64) / 255
            total, squares, pixels = total + channels.sum(0), squares + (channels**2).sum(0), pixels + len(channels)
    mean = np.asarray(total / pixels)
    # At least 1e-6, because images are divided by it: a constant channel has 0, or less from rounding.
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-12))
    return tuple(mean.tolist()), tuple(deviation.tolist())
