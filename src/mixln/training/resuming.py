"""The checkpoint from which all processes of a training resume."""

from __future__ import annotations

from pathlib import Path

from mixln.runs.checkpoints import last_usable
from mixln.runs.metrics import METRICS, MetricsFile
from mixln.training import ranks


def resumption(folder: Path) -> tuple[Path | None, MetricsFile]:
    """The checkpoint from which a training in `folder` resumes (`None` to start), and its metrics up to that step.

    See :func:`~mixln.runs.checkpoints.last_usable`. Rank 0 decides and broadcasts.
    """
    if ranks.first():
        checkpoint, metrics = last_usable(folder)
        ranks.agreed(checkpoint)
        return checkpoint, metrics
    checkpoint = ranks.agreed(None)
    step = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    return checkpoint, MetricsFile(folder / METRICS, resume_step=step, writes=False)
