"""Resumable checkpoints, written atomically, sealed with SHA-256 and verified before use; and the final model of a training run.

checkpoint-<step>/checksums.json   length and SHA-256 of every file; marks a checkpoint as complete
checkpoint-<step>/rows.json        length and SHA-256 of the part of metrics.jsonl that precedes it
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
    """The rows of `metrics.jsonl` up to a checkpoint, from the beginning of the file.

    :param size: bytes.
    """

    size: int
    sha256: str


ROWS = Schema(
    kind="checkpoint-rows",
    file="rows.json",
    record=MetricsPrefix,
    upgrades=(lambda rows: {"size": rows[0], "sha256": rows[1]},),
)
DISCARDED = "discarded.json"
"""Name of :data:`SUMS` while its checkpoint is being deleted."""
KEPT = 2
"""Number of checkpoints to keep: two, because the last may be corrupt."""
UNFINISHED = ".saving"
"""Folder in which a checkpoint is written before it is renamed into place."""
CHECKPOINT = re.compile(r"checkpoint-\d+")
OURS = re.compile(r"checkpoint-\d+(\.passed-over(-\d+)?)?")
"""Names of checkpoints, including corrupt ones that were set aside."""


def seal(folder: Path) -> None:
    """Flushes every file of a checkpoint to disk and records its length and checksum."""
    settle(folder)
    write_sums(folder, sums_of(folder))
    fsync(folder)


def corruption(folder: Path) -> str:
    """Describes how a sealed checkpoint is corrupt; empty if it is unchanged."""
    try:
        sums = read_sums(folder)
    except ValueError as error:
        return str(error)
    return f"{SUMS} is missing" if sums is None else difference_of(folder, sums)


def publish(unfinished: Path, folder: Path) -> None:
    """Seals a checkpoint, moves it to `folder` atomically, and deletes all but the last :data:`KEPT` checkpoints there."""
    if (metrics := folder / METRICS).exists():
        # Before the checkpoint: resuming from it needs the rows up to its step.
        fsync(metrics)
        size, sha256 = sums_of(folder, METRICS)[METRICS]
        ROWS.write(unfinished, MetricsPrefix(size=size, sha256=sha256))
    seal(unfinished)
    target = folder / unfinished.name
    make_way(target)  # an earlier checkpoint of this step, which was corrupt
    os.rename(unfinished, target)
    fsync(folder)
    keep_new()
    for _, old in sealed(folder)[:-KEPT]:
        discard(old)


def discard(checkpoint: Path) -> None:
    """Deletes a sealed checkpoint. Its mark goes first, so that a partly deleted checkpoint does not count as complete.

    Only the files that its :data:`SUMS` lists are deleted, and nothing through a symbolic link.
    """
    if checkpoint.is_symlink():
        return
    with contextlib.suppress(OSError, ValueError):  # without a readable list it is unknown which files mixln wrote
        names = read_sums(checkpoint)
        if names is None:
            names = read_sums(checkpoint, DISCARDED) or {}
        else:
            os.replace(checkpoint / SUMS, checkpoint / DISCARDED)
        remove_written(checkpoint, [*names, DISCARDED])


def clear(folder: Path, *, keep: str = "") -> None:
    """Deletes the checkpoints in a folder except the one named `keep`, and unfinished ones."""
    for checkpoint in written_in(folder):
        if checkpoint.name != keep:
            discard(checkpoint)
    _clear_unfinished(folder)


def _clear_unfinished(folder: Path) -> None:
    """Deletes checkpoints whose process was killed while it wrote them; other files stay."""
    place = folder / UNFINISHED
    if place.is_symlink() or not place.is_dir():
        return
    for path in place.iterdir():
        if CHECKPOINT.fullmatch(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # it contains other files
        place.rmdir()


def written_in(folder: Path) -> list[Path]:
    """Folders with the names of checkpoints, complete or not."""
    return [path for path in folder.glob("checkpoint-*") if OURS.fullmatch(path.name) and path.is_dir()]


@contextmanager
def final_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder for a final model, as :func:`~mixln.files.folder_atomic`, and lists its files in :data:`SUMS` next to it.

    An existing folder of that name is replaced, see :func:`make_way`.
    """
    with folder_atomic(path, keeps=lambda existing: False) as target:
        yield target
        made = {f"{path.name}/{name}": entry for name, entry in sums_of(target).items()}
        make_way(path)
        # Before the rename, so that a folder of that name written by mixln is always listed.
        write_sums(path.parent, {**_listed(path.parent, but=path.name), **made})


def make_way(path: Path) -> None:
    """Frees the name of a folder before it is written: deletes unchanged files of mixln, and sets the rest aside.

    See :func:`~mixln.files.set_aside`.
    """
    remove(path)
    if os.path.lexists(path):
        log.warning(f"{path} holds files that mixln did not write; it was renamed to {set_aside(path).name}")


def remove(path: Path) -> None:
    """Deletes a resumable checkpoint, or a final model whose files are listed and unchanged."""
    if CHECKPOINT.fullmatch(path.name):
        discard(path)
    listed = {name: entry for name, entry in _listed(path.parent).items() if name.startswith(f"{path.name}/")}
    if not difference_of(path.parent, listed):
        remove_written(path, [name.removeprefix(f"{path.name}/") for name in listed])


def changed(checkpoint: Path) -> str:
    """Describes how a checkpoint differs from its checksums; empty if it does not, or if it has none."""
    if (checkpoint / SUMS).is_file():
        return corruption(checkpoint)
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
    """The complete checkpoints in a folder as (optimizer steps, folder), in order of steps."""
    paths = (path.parent for path in folder.glob(f"checkpoint-*/{SUMS}") if CHECKPOINT.fullmatch(path.parent.name))
    return sorted((int(path.name.removeprefix("checkpoint-")), path) for path in paths)


def last_usable(folder: Path) -> tuple[Path | None, MetricsFile]:
    """The checkpoint from which a training in `folder` resumes, `None` for its start, and the metrics rows up to it.

    A corrupt checkpoint is renamed and skipped in favour of the previous one.
    """
    _clear_unfinished(folder)
    if (folder / UNFINISHED).is_symlink():
        set_aside(folder / UNFINISHED)  # otherwise new checkpoints would be written through the link
    for step, checkpoint in reversed(checkpoints := sealed(folder)):
        fault, size = corruption(checkpoint), None
        if not fault:
            fault, size = _rows(checkpoint, folder / METRICS)
        if not fault and not any(row["step"] == step for row in read_metrics(folder / METRICS, size=size)):
            fault = f"{METRICS} does not reach step {step}"
        if not fault:
            return checkpoint, MetricsFile(folder / METRICS, resume_step=step, size=size)
        # Renamed, so that it does not count as one of the last KEPT and displace a newer valid one.
        log.warning(f"skipped corrupt checkpoint {checkpoint}: {fault}; renamed to {set_aside(checkpoint).name}")
    if checkpoints:
        log.warning(f"{folder} has no usable checkpoint; training restarts at step 0")
    return None, MetricsFile(folder / METRICS, resume_step=0)


def _rows(checkpoint: Path, metrics: Path) -> tuple[str, int | None]:
    """Describes how the metrics rows of a checkpoint are corrupt, empty if they are not, and returns their size in bytes.

    The size is `None` for a checkpoint without :data:`ROWS`, written by an earlier version, or with a corrupt one.
    """
    if not (checkpoint / ROWS.file).is_file():
        return "", None
    try:
        listed = ROWS.read(checkpoint / ROWS.file)
        with metrics.open("rb") as file:
            rows = file.read(listed.size)
    except (OSError, ValueError) as error:
        return f"its metrics rows cannot be read ({error})", None
    if len(rows) < listed.size:
        return f"{METRICS} ends before it", listed.size
    same = hashlib.sha256(rows).hexdigest() == listed.sha256
    return "" if same else f"its rows in {METRICS} have changed", listed.size
