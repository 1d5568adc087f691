"""Where a training resumes, the same for all of its processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mixln.runs.checkpoints import last_usable
from mixln.runs.metrics import METRICS, MetricsFile
from mixln.training import ranks


def resumption(folder: Path, say: Callable[[str], None]) -> tuple[Path | None, MetricsFile]:
    """The checkpoint from which a training in `folder` goes on, `None` for its start, and its rows up to there.

    See :func:`~mixln.runs.checkpoints.last_usable`. Rank 0 decides and broadcasts.

    :param say: takes one line of news.
    """
    if ranks.first():
        checkpoint, metrics = last_usable(folder, say)
        ranks.agreed(checkpoint)
        return checkpoint, metrics
    checkpoint = ranks.agreed(None)
    step = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    return checkpoint, MetricsFile(folder / METRICS, resume_step=step, writes=False)
