"""The rows that a training writes while it runs: one JSON object a line."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

from mixln.files import free_name, write_atomic
from mixln.runs.profile import LayerProfile

METRICS, PREDICTIONS = "metrics.jsonl", "answers.npz"
"""Names of the file, and of the one with a classifier's answers beside it, see :mod:`mixln.evaluation.predictions`."""

LONGEST = 2**24
"""Bytes of a row that is read; one of a model of a thousand layers has a hundred thousand."""


class MetricsFile:
    """The rows of `metrics.jsonl`, written as they come.

    A number that is not finite is written as null, which every JSON reader takes.

    :param resume_step: rows after this step are dropped, for they will be written again; 0 to begin anew.
    :param size: bytes of the rows to keep, where that is known.
    :param writes: whether this process writes them: of several that train one model, one does.
    """

    def __init__(self, path: Path, *, resume_step: int, size: int | None = None, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        kept = read_metrics(path, size=size) if resume_step else []
        self.rows: list[dict[str, Any]] = [row for row in kept if row["step"] <= resume_step]
        if writes:
            free_name(path)
            write_atomic(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(_finite(row))
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1], allow_nan=False) + "\n")

    def curve(self, name: str) -> tuple[tuple[int, float], ...]:
        """One figure over the training: (step, value)."""
        return tuple((row["step"], row[name]) for row in self.rows if row.get(name) is not None)

    def profiles(self, name: str) -> tuple[LayerProfile, ...]:
        """The first and the last record of a figure that every sublayer has."""
        rows = [row for row in self.rows if name in row and None not in chain(*row[name].values())]
        return tuple(
            LayerProfile(
                step=row["step"],
                attention=tuple(row[name]["attention"]),
                feed_forward=tuple(row[name]["feed_forward"]),
            )
            for row in (rows[:1] + rows[-1:] if len(rows) > 1 else rows)
        )


def read_metrics(path: Path, *, size: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics file, in order, up to a line that is half written or corrupt.

    :param size: bytes of it to read; left out, all.
    """
    if not path.is_file():
        return []
    rows, left = [], path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while line := file.readline(min(LONGEST, max(left, 0))):
            left -= len(line)
            try:
                row = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                break
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                break
            rows.append(row)
    return rows


def _finite(value: Any) -> Any:
    """The same with `None` in place of every number that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
