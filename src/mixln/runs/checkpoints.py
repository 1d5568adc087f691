"""Resumable checkpoints, written atomically, sealed with SHA-256 and verified before use; and the model that a training leaves.

checkpoint-<step>/checksums.json   every file with its length and SHA-256; the mark of a checkpoint that is wholly written
checkpoint-<step>/rows.json        length and SHA-256 of the part of metrics.jsonl that belongs to it
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixln.files import folder_atomic, fsync, keep_new, remove_written, set_aside, settle
from mixln.runs.checksums import SUMS, difference_of, read_sums, sums_of, write_sums
from mixln.runs.metrics import METRICS, MetricsFile, read_metrics
from mixln.runs.schema import Schema

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MetricsPrefix:
    """The part of `metrics.jsonl` that belongs to a checkpoint, from its beginning.

    :param size: bytes.
    """

    size: int
    sha256: str


ROWS = Schema(
    kind="checkpoint-rows",
    file="rows.json",
    record=MetricsPrefix,
    upgrade=lambda rows: {"size": rows[0], "sha256": rows[1]},
)
DISCARDED = "discarded.json"
"""What :data:`SUMS` is called from when the deletion of its checkpoint begins."""
KEPT = 2
"""Checkpoints that stay: one may turn out to be corrupt."""
UNFINISHED = ".saving"
"""Folder in which a checkpoint is written before it takes its name."""
CHECKPOINT = re.compile(r"checkpoint-\d+")
OURS = re.compile(r"checkpoint-\d+(\.passed-over(-\d+)?)?")
"""Names of checkpoints, and of those that were found to be corrupt."""


def seal(folder: Path) -> None:
    """Flushes every file of a checkpoint to the disk and writes down its length and checksum."""
    settle(folder)
    write_sums(folder, sums_of(folder))
    fsync(folder)


def damage(folder: Path) -> str:
    """What is wrong with a sealed checkpoint, in words; empty if it is as it was written."""
    try:
        sums = read_sums(folder)
    except ValueError as error:
        return str(error)
    return f"{SUMS} is missing" if sums is None else difference_of(folder, sums)


def publish(unfinished: Path, folder: Path) -> None:
    """Seals a checkpoint and flushes the rows before it, gives it its name in `folder`, and deletes all but the last :data:`KEPT` there."""
    if (metrics := folder / METRICS).exists():
        fsync(metrics)  # without the rows up to it, it could not be gone on from
        size, sha256 = sums_of(folder, METRICS)[METRICS]
        ROWS.write(unfinished, MetricsPrefix(size=size, sha256=sha256))
    seal(unfinished)
    target = folder / unfinished.name
    make_way(target)  # of a training that was here before, and has been corrupted since
    os.rename(unfinished, target)
    fsync(folder)
    keep_new()
    for _, old in sealed(folder)[:-KEPT]:
        discard(old)


def discard(checkpoint: Path) -> None:
    """Deletes a sealed checkpoint, its mark first: what is half deleted must not have it.

    Only the files that its :data:`SUMS` lists are deleted, and nothing through a symbolic link.
    """
    if checkpoint.is_symlink():
        return
    with contextlib.suppress(OSError, ValueError):  # without its list nobody knows what was written
        names = read_sums(checkpoint)
        if names is None:
            names = read_sums(checkpoint, DISCARDED) or {}
        else:
            os.replace(checkpoint / SUMS, checkpoint / DISCARDED)
        remove_written(checkpoint, [*names, DISCARDED])


def clear(folder: Path, *, keep: str = "") -> None:
    """Deletes the checkpoints that were written into a folder, but for the one of that name, and the one that was being written."""
    for checkpoint in written_in(folder):
        if checkpoint.name != keep:
            discard(checkpoint)
    _clear_unfinished(folder)


def _clear_unfinished(folder: Path) -> None:
    """Deletes checkpoints that were being written when their process was killed; what else lies among them stays."""
    place = folder / UNFINISHED
    if place.is_symlink() or not place.is_dir():
        return
    for path in place.iterdir():
        if CHECKPOINT.fullmatch(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else lies in it
        place.rmdir()


def written_in(folder: Path) -> list[Path]:
    """The folders with names of checkpoints, whole or not."""
    return [path for path in folder.glob("checkpoint-*") if OURS.fullmatch(path.name) and path.is_dir()]


@contextmanager
def final_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder for what a training leaves, as :func:`~mixln.files.folder_atomic`, and lists it in :data:`SUMS` beside it.

    What stands there already does not stay, see :func:`make_way`.

    """
    with folder_atomic(path, keeps=lambda there: False) as target:
        yield target
        made = {f"{path.name}/{name}": entry for name, entry in sums_of(target).items()}
        make_way(path)
        # Before the folder has its name, so that what has the name is known to have been written here.
        write_sums(path.parent, {**_listed(path.parent, but=path.name), **made})


def make_way(path: Path) -> None:
    """Frees the name of a folder that is to be written.

    What was written there before, and is unchanged, is deleted; everything else is renamed, see :func:`~mixln.files.set_aside`.

    """
    remove(path)
    if os.path.lexists(path):
        log.warning(f"{path} holds files that were not written here: it is {set_aside(path).name} now")


def remove(path: Path) -> None:
    """Deletes what a training has left in a folder, resumable or final, as far as it is known and unchanged."""
    if CHECKPOINT.fullmatch(path.name):
        discard(path)
    listed = {name: entry for name, entry in _listed(path.parent).items() if name.startswith(f"{path.name}/")}
    if not difference_of(path.parent, listed):
        remove_written(path, [name.removeprefix(f"{path.name}/") for name in listed])


def changed(checkpoint: Path) -> str:
    """Describes how a checkpoint differs from what was written; empty if it does not, or has no checksums."""
    if (checkpoint / SUMS).is_file():
        return damage(checkpoint)
    return difference_of(
        checkpoint.parent,
        {name: entry for name, entry in _listed(checkpoint.parent).items() if name.startswith(f"{checkpoint.name}/")},
    )


def _listed(folder: Path, *, but: str = "") -> dict[str, tuple[int, str]]:
    """Files listed by :data:`SUMS` in a folder, without those in the subfolder `but`; none if the list is corrupt."""
    try:
        sums = read_sums(folder) or {}
    except ValueError:
        return {}
    return {name: entry for name, entry in sums.items() if not name.startswith(f"{but}/")}


def sealed(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder that were wholly written: optimizer steps and folder, in their order."""
    found = (path.parent for path in folder.glob(f"checkpoint-*/{SUMS}") if CHECKPOINT.fullmatch(path.parent.name))
    return sorted((int(path.name.removeprefix("checkpoint-")), path) for path in found)


def last_usable(folder: Path) -> tuple[Path | None, MetricsFile]:
    """The checkpoint from which a training in `folder` resumes, `None` for its start, and its rows up to there.

    A corrupt checkpoint is renamed and skipped in favour of the one before it.

    """
    _clear_unfinished(folder)
    if (folder / UNFINISHED).is_symlink():
        set_aside(folder / UNFINISHED)  # else checkpoints would be written where it leads
    for step, checkpoint in reversed(there := sealed(folder)):
        found, size = damage(checkpoint), None
        if not found:
            found, size = _rows(checkpoint, folder / METRICS)
        if not found and not any(row["step"] == step for row in read_metrics(folder / METRICS, size=size)):
            found = f"{METRICS} does not reach step {step}"
        if not found:
            return checkpoint, MetricsFile(folder / METRICS, resume_step=step, size=size)
        # Else it would count as one of the last, and those that are written from here on would go in its stead.
        log.warning(f"checkpoint {checkpoint} is passed over: {found}; it is {set_aside(checkpoint).name} now")
    if there:
        log.warning(f"{folder} has no checkpoint that can be used: its training starts again at step 0")
    return None, MetricsFile(folder / METRICS, resume_step=0)


def _rows(checkpoint: Path, metrics: Path) -> tuple[str, int | None]:
    """Describes what is wrong with the metrics rows of a checkpoint, and gives their size in bytes.

    The size is `None` where the checkpoint does not say how many rows it has.
    """
    if not (checkpoint / ROWS.file).is_file():
        return "", None
    try:
        listed = ROWS.read(checkpoint / ROWS.file)
        with metrics.open("rb") as file:
            rows = file.read(listed.size)
    except (OSError, ValueError) as error:
        return f"its rows cannot be read ({error})", None
    if len(rows) < listed.size:
        return f"{METRICS} ends before it", listed.size
    same = hashlib.sha256(rows).hexdigest() == listed.sha256
    return "" if same else f"its rows in {METRICS} have changed", listed.size
