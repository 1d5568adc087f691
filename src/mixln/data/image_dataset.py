"""Labelled images to train on: found, looked at once each, split, and cached by the hash of everything that goes into them.

<cache>/images/<key>/train/       rows `image` (bytes or path) and `label`, as datasets' Arrow; likewise held_out/
<cache>/images/<key>/train.npy    the same as pixels (N, S, S, C), where all images have the model's size already
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
"""Changes whenever the reading or the split does, so that an old cache is not taken for a new one."""
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist puts its files."""
FASHION_HUB = "zalando-datasets/fashion_mnist"
IDX_BYTES = 2**26
"""Bytes of an unpacked file of it at most; the largest has 47 million."""
TRAIN, HELD_OUT = "train", "held_out"
NAMED = 3
"""Unreadable images whose names are said; the list of all is in unreadable.txt."""
SAMPLE = 10_000
"""Images whose pixels the mean and the deviation are taken of."""
AT_ONCE = 2**22
"""Pixels whose squares are taken at once: 8 bytes for each channel."""
MODES = {1: "L", 3: "RGB"}
"""Channels of the model → Pillow's name for such images."""


@dataclass(frozen=True, kw_only=True)
class ImagesInfo:
    """What is known of prepared images.

    :param fingerprint: hash of the images and of how they were prepared.
    :param classes: their names, in the order of their labels.
    :param size: height and width that the model takes, pixels.
    :param mean: of the training pixels, of each channel, in [0, 1]; `deviation` likewise.
    :param unreadable: images that could not be read and were left out.
    :param converted: images with other channels than the model takes, which were converted.
    :param majority: share of the held-out images that are of the most frequent training class: what a model gets that learnt only
        frequencies; `frequency_loss` is its loss, nats per image.
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
        """What it is and how much, in words."""
        counted = f"{self.train_images:,} training and {self.held_out_images:,} held-out images"
        return f"{self.description}; {counted} of {len(self.classes)} classes"


INFO = Schema(kind="images", file="images.json", record=ImagesInfo, former="info.json")
CACHED = RunKind(noun="images", result=INFO)
"""Images in the cache: the name of their folder is the hash of their request."""


@dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """Prepared images on the disk."""

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
    """One part of them.

    :param rows: `image` and `label`.
    :param pixels: (N, S, S, C) uint8 where they lie ready, mapped into memory.
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
        """One image, with the model's channels and the size that it has.

        :raises DataError: if it cannot be read any more.
        """
        from PIL import Image

        if self.pixels is not None:
            found = self.pixels[index]
            return Image.fromarray(found[..., 0] if self.mode == "L" else found)
        entry = self.rows[index]["image"]
        try:
            return _opened(entry).convert(self.mode)
        except (OSError, ValueError) as error:
            raise DataError(
                f"image {_name(entry)} cannot be read any more: {first_line(error)}; put it back, or delete the cache"
            ) from error


def prepare_images(settings: ImageSettings, *, size: int, channels: int, cache: Path) -> PreparedImages:
    """Finds the images that `settings` names, looks at each, and splits them; or finds all that in the cache.

    :param size: height and width that the model takes, pixels; `channels` likewise, 1 or 3.
    :param cache: folder of the cache; it is made if missing.
    :raises DataError: if there are none, of one class only, or too many cannot be read.
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
    found = PreparedImages.load(folder)
    if found.info.unreadable:
        names = (folder / "unreadable.txt").read_text("utf-8").splitlines()
        more = f" and {len(names) - NAMED} more, see {folder / 'unreadable.txt'}" if len(names) > NAMED else ""
        log.warning(f"images: {len(names)} cannot be read and are left out: {', '.join(names[:NAMED])}{more}")
        _refuse_many(len(names), found.info.train_images + found.info.held_out_images + len(names), settings, names)
    if found.info.converted:
        kind = {"L": "grey", "RGB": "colour"}[MODES[channels]]
        keep = "; --num-channels 3 keeps colours" if channels == 1 else ""
        log.info(
            f"images: {found.info.converted:,} had other channels than the model's {channels} and became {kind}{keep}"
        )
    return found


def same_images(
    settings: ImageSettings,
    fingerprint: str,
    *,
    size: int,
    channels: int,
    cache: Path,
) -> PreparedImages:
    """Images that were prepared before: from the cache, wherever they lay, or prepared again.

    :param fingerprint: what they had then.
    :raises DataError: if they are not in the cache, and other images lie in their place by now.
    """
    there = cache / "images" / fingerprint
    if fingerprint and RunFolder(there, CACHED).has_result:
        return PreparedImages.load(there)
    found = prepare_images(settings, size=size, channels=channels, cache=cache)
    if found.info.fingerprint != fingerprint:
        raise DataError(
            f"data {settings.data} has changed since the model was trained on it: what was held out is not known; name other "
            "images with --data"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _ImageSource:
    """Where images come from.

    :param identity: changes with them.
    :param read: part → rows `image` and `label`; a part that is held out where there is one.
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
            f"data {settings.data} is no folder of images; give a folder, a hub data set, or one of {', '.join(EMBEDDED)}"
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
        found: Any = load_digits()
        return {TRAIN: _encoded((found.images * (255 / 16)).astype(np.uint8), found.target, tuple("0123456789"))}

    described = f"handwritten digits (package scikit-learn {version('scikit-learn')}, BSD; images: UCI)"
    return _ImageSource(description=described, identity=["digits", version("scikit-learn")], read=read)


EMBEDDED: dict[str, Callable[[], _ImageSource]] = {"fashion-mnist": _fashion, "digits": _digits}
"""Images with a name of their own."""


PARTS = {
    TRAIN: ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Part of the data → words in the names of its folders, or of its files, as the datasets library has them."""


def _folder(path: Path) -> _ImageSource:
    """A folder with a subfolder for each class, or with train and val (or validation, or test) folders of such."""

    def read() -> dict[str, Dataset]:
        import datasets
        from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

        files = [
            file
            for file in image_files(path, ImageFolder.EXTENSIONS)
            if not any(part.startswith("__") for part in file.relative_to(path).parts)
        ]
        if not files:
            raise DataError(f"data {path} holds no images in subfolders that are their classes; see docs/vision.md")
        parts = _parts_of(path, files)
        names = sorted({file.parent.name for part in parts.values() for file in part})
        labels = {name: label for label, name in enumerate(names)}
        features = datasets.Features(
            {
                "image": datasets.Image(decode=False),
                "label": datasets.ClassLabel(names=[printable(name) for name in names]),
            }
        )
        found = {
            part: datasets.Dataset.from_dict(
                {"image": list(map(_entry, members)), "label": [labels[file.parent.name] for file in members]},
                features=features,
            )
            for part, members in parts.items()
        }
        return _parts(found, f"folder {path}")

    listed = hashlib.sha256(
        "".join(
            f"{file.relative_to(path)} {file.stat().st_size} {file.stat().st_mtime_ns}\n" for file in all_files(path)
        ).encode("utf-8", "surrogateescape")
    )
    return _ImageSource(
        description=f"{printable(path.name)} (local)", identity=[str(path.resolve()), listed.hexdigest()], read=read
    )


def _entry(file: Path) -> dict[str, Any]:
    """An image in a row. A name that is not UTF-8 cannot stand there: of such a file the bytes do."""
    name = os.path.abspath(file)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return {"bytes": file.read_bytes() if file.stat().st_size <= MOST_BYTES else b"", "path": printable(name)}
    return {"bytes": None, "path": name}


def _parts_of(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """The files of each part, by the names of their folders, else by their own; all are to train on where none has such a name."""

    def members(names_of: Callable[[Path], tuple[str, ...]], words: tuple[str, ...]) -> list[Path]:
        ranks = {file: min((_rank(name, words) for name in names_of(file)), default=NO_RANK) for file in files}
        return sorted((file for file in files if ranks[file] < NO_RANK), key=lambda file: (ranks[file], str(file)))

    for names_of in (lambda file: file.relative_to(folder).parts[:-1], lambda file: (file.name,)):
        found = {part: members(names_of, words) for part, words in PARTS.items()}
        if any(found.values()):
            return {part: chosen for part, chosen in found.items() if chosen}
    return {TRAIN: sorted(files, key=str)}


NO_RANK = (9, 9)
"""For a name that contains none of the words."""


def _rank(name: str, words: tuple[str, ...]) -> tuple[int, int]:
    """Which of the words stands in a name, and whether it is all of it, its beginning, its end, or within; the datasets library
    takes files in this order."""
    forms = ("{}", "{}[-._ 0-9].*", ".*[-._ 0-9]{}", ".*[-._ 0-9]{}[-._ 0-9].*")
    found = (
        (number, form)
        for number, word in enumerate(words)
        for form, pattern in enumerate(forms)
        if word in name and re.fullmatch(pattern.format(word), name, re.DOTALL)
    )
    return next(found, NO_RANK)


def _hub(name: str, called: str = "", else_: str = "") -> _ImageSource:
    import datasets

    try:
        with quiet():
            path, _, config = name.partition(":")
            builder: Any = datasets.load_dataset_builder(path, config or None)
    except Exception as error:  # the hub client raises many kinds: no network, no such data set, no permission
        raise DataError(
            f"data {called or name!r} is no local folder, and the hub did not give it: {first_line(error)}; "
            f"check the name and the network{else_}"
        ) from error

    def read() -> dict[str, Dataset]:
        builder.download_and_prepare()
        return _parts(builder.as_dataset(), f"hub data set {name}")

    return _ImageSource(description=f"{printable(name)} (hub)", identity=["hub", name, builder.hash], read=read)


def _parts(found: Any, where: str) -> dict[str, Dataset]:
    """The training and the held-out rows of what datasets has read.

    :raises DataError: if there is no column of images or of classes.
    """
    import datasets

    if TRAIN not in found:
        raise DataError(f"{where} has no part 'train'; it has: {', '.join(found)}")
    features = found[TRAIN].features
    columns = {
        "image": [name for name, kind in features.items() if isinstance(kind, datasets.Image)],
        "label": [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)],
    }
    for what, names in columns.items():
        if len(names) != 1:
            kind = {"image": "images", "label": "classes (a folder for each)"}[what]
            raise DataError(f"{where} must have one column of {kind}, got {len(names)}; it has: {', '.join(features)}")
    held_out = next((name for name in ("validation", "test") if name in found), None)
    chosen = {TRAIN: found[TRAIN], **({HELD_OUT: found[held_out]} if held_out else {})}
    return {
        part: rows.select_columns([columns["image"][0], columns["label"][0]])
        .rename_columns({columns["image"][0]: "image", columns["label"][0]: "label"})
        .cast_column("image", datasets.Image(decode=False))
        for part, rows in chosen.items()
    }


def _idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file: two zero bytes, the type 8, the dimensions, and each one's size.

    :raises DataError: if it is another.
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
    """Rows of grey images (N, H, W)."""
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
    log.info(f"images: looking at {sum(map(len, parts.values())):,}")
    bad, total, converted, ready = [], 0, 0, True
    for part, rows in parts.items():
        seen = list(_looked_at(rows, MODES[channels]))
        total += len(rows)
        bad += [what for what, *_ in seen if what]
        converted += sum(other for what, _, other in seen if not what)
        ready = ready and all(shape == (size, size) for what, shape, _ in seen if not what)
        if any(what for what, *_ in seen):
            parts[part] = rows.select([index for index, (what, *_) in enumerate(seen) if not what])
    _refuse_many(len(bad), total, settings, bad)
    if HELD_OUT not in parts:
        parts = _split(parts[TRAIN], settings.held_out)
    counts = Counter(parts[TRAIN]["label"])
    if len(counts) < 2:
        only = ", ".join(classes[index] for index in counts) or "none"
        raise DataError(
            f"data {settings.data} must have images of at least two classes to tell apart, got {only}; see docs/vision.md"
        )
    held_out = parts[HELD_OUT]["label"]
    if alone := sorted(set(held_out) - set(counts)):
        names = ", ".join(classes[label] for label in alone)
        raise DataError(
            f"data {settings.data} holds out images of {names} and has none to train on; give both parts the same classes"
        )
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


def _refuse_many(bad: int, total: int, settings: ImageSettings, names: list[str]) -> None:
    if bad > settings.unreadable * total:
        raise DataError(
            f"data {settings.data}: {bad} of {total} images cannot be read, more than the share of {settings.unreadable:g} that "
            f"--unreadable allows: {', '.join(names[:NAMED])}{', …' if bad > NAMED else ''}; mend or remove them"
        )


def _looked_at(rows: Dataset, mode: str) -> Iterator[tuple[str, tuple[int, int], bool]]:
    """Of each image: its name if it cannot be read, its height and width, and whether its channels are other ones."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = rows.map(
        _look,
        fn_kwargs={"mode": mode},
        remove_columns=rows.column_names,
        load_from_cache_file=False,
        num_proc=cores if len(rows) > SAMPLE else None,
    )
    for row in found:
        yield row["bad"], (row["height"], row["width"]), row["other"]  # type: ignore[index,call-overload]


def _look(row: dict[str, Any], mode: str) -> dict[str, Any]:
    try:
        image = _opened(row["image"])
    except ValueError as error:
        return {"bad": f"{_name(row['image'])} ({first_line(error)})", "height": 0, "width": 0, "other": False}
    return {"bad": "", "height": image.height, "width": image.width, "other": image.mode != mode}


def _opened(entry: dict[str, Any]) -> Image:
    """:raises ValueError: whatever is wrong with it."""
    return open_image(entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]))


def _name(entry: dict[str, Any]) -> str:
    return printable(entry["path"] or "without a name")


def _split(rows: Dataset, share: float) -> dict[str, Dataset]:
    """Holds out a share of each class, spread evenly over its images, at least one."""
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
    """(N, S, S, C) of images of this size."""
    images = [np.asarray(_opened(entry).convert(mode)) for entry in rows["image"]]
    return np.stack(images).reshape(len(images), size, size, -1)


def _moments(rows: Dataset, mode: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of each channel, in [0, 1], over some images spread evenly."""
    count = min(len(rows), SAMPLE)
    total, squares, pixels = 0.0, 0.0, 0
    for number in range(count):
        image = np.asarray(_opened(rows[number * len(rows) // count]["image"]).convert(mode))
        values = image.reshape(image.shape[0] * image.shape[1], -1)
        for start in range(0, len(values), AT_ONCE):
            channels = values[start : start + AT_ONCE].astype(np.float64) / 255
            total, squares, pixels = total + channels.sum(0), squares + (channels**2).sum(0), pixels + len(channels)
    mean = np.asarray(total / pixels)
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-12))
    return tuple(mean.tolist()), tuple(deviation.tolist())
