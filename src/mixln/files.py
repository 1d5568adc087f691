"""Writing that leaves either the old content or the new, never a half of it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixln.errors import StoreError

FULL = 2**20
"""Bytes: a disk with less free room is full."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name in the same folder, flushes it to the disk, and renames it."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        fsync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep(folder: Path, *names: str) -> None:
    """Deletes what a process that was killed while it wrote files or folders atomically has left; none may be at it still.

    :param names: of the files or folders that were to be written; patterns as in :meth:`pathlib.Path.glob`.
    """
    for name in names:
        for left in folder.glob(f".{name}.????????"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def wrong_size(path: Path, size: int) -> str:
    """What is wrong with a file that should have so many bytes, in words; empty if it has."""
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    return "" if found == size else f"has {found:,} of {size:,} bytes"


def fsync(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no such thing for folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(folder: Path) -> None:
    """Flushes a folder with all its content to the disk, and lets everyone read it: temporary files and safetensors' are private."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o755 if path.is_dir() else 0o644)
        fsync(path)


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends without an error, it is flushed to the disk and takes the name `path`.

    If another process has made `path` meanwhile, that one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        settle(temporary)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
        fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def no_room(error: BaseException, folder: Path) -> bool:
    """Whether an error, or one that led to it, is that of a full disk or quota.

    :param folder: where it was written to.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # torch and safetensors write by themselves, and say it in words; torch's are the same for whatever went wrong.
        if re.search(r"[Nn]o space left|os error 28\b", str(seen)):
            return True
        if "failed writing" in str(seen) and shutil.disk_usage(folder).free < FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def bytes_text(count: float) -> str:
    """Bytes in a unit in which they are not 0: `512 bytes`, `3.2 MB`, `17.0 GB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def bytes_texts(need: float, has: float) -> tuple[str, str]:
    """Two amounts of bytes, exactly where their short forms are equal and they are not."""
    short = bytes_text(need), bytes_text(has)
    return (f"{need:,.0f} bytes", f"{has:,.0f} bytes") if short[0] == short[1] and need != has else short


def existing(path: Path) -> Path:
    """The path itself, or the nearest of its parents that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_writable(out: Path) -> None:
    """Checks, without writing anything, that a folder for results can be used or made.

    :raises StoreError: if something else is in its place, or there is no permission.
    """
    place = existing(out)
    if not place.is_dir():
        raise StoreError(f"out {out} cannot be made: {place} is a file; choose another --out")
    if not os.access(place, os.W_OK):
        raise StoreError(f"out {out} cannot be written: no permission in {place}; choose another --out")
