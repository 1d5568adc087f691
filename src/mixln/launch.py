"""Whether torchrun or accelerate started this process beside others; nothing here needs torch."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """This process's rank, from 0, and how many were started together: (0, 1) for one alone."""
    return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
