"""Small jobs and results in folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mixln.runs.folder import REQUEST, RunFolder, RunKind
from mixln.runs.schema import Request, Schema
from mixln.runs.trials import TRIAL_RUN, TrialResult

R = TypeVar("R")
ASKED, RESULT = REQUEST.file, "result.json"


def once(
    folder: Path,
    asked: Request,
    record: type[R],
    work: Callable[[], R],
    leaves: Callable[[R], Sequence[str]] = lambda result: (),
) -> tuple[R, bool]:
    """Does a training in a folder, unless it has been done; its result is a `record`."""
    kind = RunKind(noun="training", result=Schema(kind="test", file=RESULT, record=record))
    return RunFolder(folder, kind).once(asked, work, leaves)


def write_result(folder: Path, result: TrialResult) -> None:
    """Marks the trial in `folder` as ended, without checksums."""
    TRIAL_RUN.result.write(folder, result)
