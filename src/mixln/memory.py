"""The C library's allocator, told to keep what it has."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to give freed memory to the next tensor, and not back to the system. For the process, until it ends.

    Without a GPU, every large tensor is otherwise made of new pages, and much of a forward pass can go into clearing them.

    :returns: whether there is a glibc to tell.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system, or another C library
        return False
    # One arena: the others, which threads have, give memory back all the same.
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, MOST) and mallopt(ARENA_MAX, 1))
