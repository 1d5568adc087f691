"""Detects whether torchrun or accelerate started this process as one of several. Nothing here needs torch."""

from __future__ import annotations

import os

from mixln.errors import SettingsError

NUMBERS = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}
"""Environment variables of distributed processes → smallest valid value."""
REMEDY = "unset it, or start with torchrun, which sets all of them"


def launched() -> tuple[int, int]:
    """(rank from 0, world size) of this process; (0, 1) for a single process.

    :raises SettingsError: if the environment variables are invalid.
    """
    # All of them are checked, also those that are not returned.
    numbers = {name: _number(name, least) for name, least in NUMBERS.items()}
    rank, size = numbers["RANK"] or 0, numbers["WORLD_SIZE"] or 1
    if rank >= size:
        raise SettingsError(f"RANK in the environment must be below WORLD_SIZE {size}, got {rank}; {REMEDY}")
    return rank, size


def check_meeting() -> None:
    """:raises SettingsError: if there are several processes but no rendezvous address."""
    size = launched()[1]
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if size > 1 and missing:
        raise SettingsError(f"WORLD_SIZE in the environment is {size}, but {missing[0]} is not set; {REMEDY}")


def _number(name: str, least: int) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    # isdigit() alone accepts digits such as ², and int() of very long texts raises an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise SettingsError(
            f"{name} in the environment must be an integer of at least {least}, got {text[:40]!r}; {REMEDY}"
        )
    return int(text)
