"""Whether torchrun or accelerate started this process beside others; nothing here needs torch."""

from __future__ import annotations

import os

from mixln.errors import SettingsError

NUMBERS = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}
"""Variables by which processes that are started together know of each other, and the least that each may be."""
REMEDY = "unset it, or start with torchrun, which sets all of them"


def launched() -> tuple[int, int]:
    """This process's rank, from 0, and how many were started together: (0, 1) for one alone.

    :raises SettingsError: if the environment says what cannot be.
    """
    found = {name: _number(name, least) for name, least in NUMBERS.items()}
    rank, size = found["RANK"] or 0, found["WORLD_SIZE"] or 1
    if rank >= size:
        raise SettingsError(f"RANK in the environment must be below WORLD_SIZE {size}, got {rank}; {REMEDY}")
    return rank, size


def check_meeting() -> None:
    """:raises SettingsError: if several processes were started together and do not know where they meet."""
    size = launched()[1]
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if size > 1 and missing:
        raise SettingsError(f"WORLD_SIZE in the environment is {size}, and {missing[0]} is not set; {REMEDY}")


def _number(name: str, least: int) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise SettingsError(
            f"{name} in the environment must be a whole number from {least} on, got {text[:40]!r}; {REMEDY}"
        )
    return int(text)
