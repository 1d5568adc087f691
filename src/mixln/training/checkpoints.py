"""Checkpoints that a training can go on from: written whole or not at all, sealed with checksums, and looked at before they are used.

checkpoint-<step>/checksums.json   every file with its length and SHA-256; the mark of a checkpoint that is wholly written
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from mixln.files import fsync, settle, write_atomic, wrong_size
from mixln.records import read_json
from mixln.training import ranks
from mixln.training.metrics import METRICS, MetricsFile, read_metrics

SUMS = "checksums.json"
KEPT = 2
"""Checkpoints that stay: one may turn out to be damaged."""
ASIDE = ".passed-over"
"""What the name of a checkpoint that cannot be used ends with from then on."""
UNFINISHED = ".saving"
"""Folder in which a checkpoint is written before it takes its name."""


def seal(folder: Path) -> None:
    """Flushes every file of a checkpoint to the disk and writes down its length and checksum."""
    sums = {}
    settle(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sums[path.relative_to(folder).as_posix()] = [path.stat().st_size, _sha256(path)]
    write_atomic(folder / SUMS, json.dumps(sums, indent=1))
    fsync(folder)


def damage(folder: Path) -> str:
    """What is wrong with a sealed checkpoint, in words; empty if it is as it was written."""
    try:
        sums = dict(read_json(folder / SUMS))
        for name, (size, digest) in sums.items():
            if found := wrong_size(folder / name, size):
                return f"{name} {found}"
            if _sha256(folder / name) != digest:
                return f"the content of {name} has changed"
    except (OSError, ValueError, TypeError) as error:
        return f"{SUMS} cannot be read ({error})"
    return ""


def publish(unfinished: Path, folder: Path) -> None:
    """Seals a checkpoint and flushes the rows before it, gives it its name in `folder`, and deletes all but the last :data:`KEPT` there."""
    if (metrics := folder / METRICS).exists():
        fsync(metrics)  # without the rows up to it, it could not be gone on from
    seal(unfinished)
    target = folder / unfinished.name
    if target.exists():  # of a training that was here before, and has been damaged since
        discard(target)
    os.rename(unfinished, target)
    fsync(folder)
    for _, old in sealed(folder)[:-KEPT]:
        discard(old)


def discard(checkpoint: Path) -> None:
    """Deletes a checkpoint, its mark first: what is half deleted must not bear it."""
    (checkpoint / SUMS).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def sealed(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder that were wholly written: optimizer steps and folder, in their order."""
    found = (
        path.parent for path in folder.glob(f"checkpoint-*/{SUMS}") if re.fullmatch(r"checkpoint-\d+", path.parent.name)
    )
    return sorted((int(path.name.removeprefix("checkpoint-")), path) for path in found)


def resumption(folder: Path, say: Callable[[str], None]) -> tuple[Path | None, MetricsFile]:
    """The checkpoint from which a training in `folder` goes on, `None` for its start, and its rows up to there.

    One that is damaged is passed over for the one before it. Of several processes, rank 0 looks and all take its answer.

    :param say: takes one line of news.
    """
    if ranks.first():
        checkpoint, metrics = _resumption(folder, say)
        ranks.agreed(checkpoint)
        return checkpoint, metrics
    checkpoint = ranks.agreed(None)
    step = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    return checkpoint, MetricsFile(folder / METRICS, resume_step=step, writes=False)


def _resumption(folder: Path, say: Callable[[str], None]) -> tuple[Path | None, MetricsFile]:
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    for step, checkpoint in reversed(there := sealed(folder)):
        found = damage(checkpoint)
        if not found and not any(row["step"] == step for row in read_metrics(folder / METRICS)):
            found = f"{METRICS} does not reach step {step}"
        if not found:
            return checkpoint, MetricsFile(folder / METRICS, resume_step=step)
        aside = checkpoint.with_name(checkpoint.name + ASIDE)
        say(f"checkpoint {checkpoint} is passed over: {found}; it is {aside.name} now")
        # Else it would count as one of the last, and those that are written from here on would go in its stead.
        discard(aside)
        os.rename(checkpoint, aside)
    if there:
        say(f"{folder} has no checkpoint that can be used: its training starts again at step 0")
    return None, MetricsFile(folder / METRICS, resume_step=0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
