"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
MOST = 2**31 - 1
"""Largest value that `mallopt` takes, a C int."""


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of returning it to the system, for the rest of the process.

    Otherwise every large tensor on the CPU gets new pages, and clearing them can take much of a forward pass.

    :returns: whether the settings were applied: False without glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system or C library
        return False
    # Blocks below MMAP_THRESHOLD (1 GiB) come from the heap, which is reused. One arena, because the arenas of other threads return
    # memory to the system regardless of the threshold.
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, MOST) and mallopt(ARENA_MAX, 1))
