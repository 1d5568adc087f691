"""Metrics that a training run logs as it goes: one JSON object per line."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

from mixln.files import free_name, write_atomic
from mixln.runs.profile import LayerProfile

METRICS, PREDICTIONS = "metrics.jsonl", "answers.npz"
"""Names of the metrics file and of the file with a classifier's predictions, see :mod:`mixln.evaluation.predictions`."""

LONGEST = 2**24
"""Longest row that is read, bytes (16 MiB); a row of a model with 1,000 layers has about 100 kB."""


class MetricsFile:
    """The rows of `metrics.jsonl`, appended one by one.

    A non-finite number is written as null, because NaN is not valid JSON.

    :param resume_step: optimizer step to resume from. Later rows are dropped because they will be written again; 0 drops all.
    :param size: bytes of the rows to keep; by default the complete file.
    :param writes: whether this process writes the file; only one of several processes that train a model does.
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
        """One metric over the training run: (step, value)."""
        return tuple((row["step"], row[name]) for row in self.rows if row.get(name) is not None)

    def profiles(self, name: str) -> tuple[LayerProfile, ...]:
        """The first and the last record of a per-sublayer metric, without records that contain non-finite values."""
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
    """The rows of a metrics file, in order, up to the first truncated or corrupt line.

    :param size: bytes to read; by default the complete file.
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
    """Replaces every non-finite number by `None`."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
