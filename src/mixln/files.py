"""Atomic writes of files and folders, checksums, and removal of exactly the files that were written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mixln.errors import StoreError

FULL = 2**20
"""Free bytes below which a disk counts as full."""
TEMPORARY = re.compile(r"\..+\.mixln-[0-9a-f]{12}(\.lock)?")
"""Names of temporary files and of the lock files of temporary folders."""
ASIDE = ".passed-over"
"""Suffix of a file or folder that was renamed to make way for a new one."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: under a temporary name in the same folder, flushed to disk, then renamed.

    First deletes the temporary files of killed writers in the folder.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    sweep(path.parent)
    new = not os.path.lexists(path)
    temporary, handle = _begin(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file; elsewhere the open file holds the lock of a live writer
            os.replace(temporary, path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if new:
        note(path)


@contextmanager
def folder_atomic(path: Path, *, keeps: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """Yields an empty folder to fill; if the block succeeds, flushes the folder to disk and renames it to `path`.

    :param keeps: whether to keep an existing folder of that name, which another process may have created meanwhile; otherwise it is
        set aside, see :func:`set_aside`.
    """
    with temporary_folder(path) as temporary:
        yield temporary
        settle(temporary)
        inside = [entry.relative_to(temporary) for entry in temporary.rglob("*")]
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
            if keeps(path):
                return
            set_aside(path)
            os.rename(temporary, path)
        fsync(path.parent)
        note(path, *(path / name for name in inside))


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder next to `path` and deletes it at the end; after a kill, the next writer there deletes it."""
    make_folder(path.parent)
    sweep(path.parent)
    lock, handle = _begin(path, ".lock")
    temporary = lock.with_suffix("")
    try:
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(handle)


def holding(name: str) -> Callable[[Path], bool]:
    """Predicate for :func:`folder_atomic`: whether a folder has a file of that name, which marks it as complete."""
    return lambda folder: (folder / name).is_file()


def sweep(folder: Path) -> None:
    """Deletes temporary files and folders that killed processes left in a folder.

    A writer holds a lock that is released when its process ends, also on another machine if the file system supports locks. Locked
    files stay, and without locks all files stay.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _sweep(Path(entry.path))


def _sweep(path: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR)
        try:
            if _lock(handle):
                # A folder cannot hold a lock: FOLDER.lock stands for it.
                folder = path.with_suffix("")
                if path.suffix == ".lock" and folder.is_dir():
                    shutil.rmtree(folder)
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _begin(path: Path, suffix: str = "") -> tuple[Path, int]:
    """Creates and locks a file with a temporary name next to `path`, with the permissions of new files of this process."""
    while True:
        temporary = path.with_name(f".{path.name}.mixln-{secrets.token_hex(6)}{suffix}")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        # Another process may have deleted it between creation and locking; then it has no name (link) left.
        if _lock(handle) is not False and (os.name == "nt" or os.fstat(handle).st_nlink):
            return temporary, handle
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Locks an open file; returns whether the lock was free, `None` if locks are not supported."""
    if os.name == "nt":
        return None
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


_new: ContextVar[tuple[Path, list[Path]] | None] = ContextVar("_new", default=None)


@contextmanager
def undone_on(folder: Path, *errors: type[Exception]) -> Iterator[None]:
    """Context that removes the new files and folders in a folder, and the folder itself if new, when it ends with one of the errors.

    Files from elsewhere in the new folders stay, and so do those folders. Files outside the folder stay, such as the cache, which
    other processes use.
    """
    outer, made = _new.get(), list[Path]()
    token = _new.set((folder.absolute(), made))
    try:
        yield
    except errors:
        # In reverse, because a folder is noted before its content.
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        raise
    else:
        # An outer context may still fail.
        if outer is not None:
            outer[1].extend(path for path in made if _belongs(path, outer[0]))
    finally:
        _new.reset(token)


def note(*paths: Path) -> None:
    """Records new paths, a folder before its content; see :func:`undone_on`."""
    if (current := _new.get()) is not None:
        root, made = current
        made.extend(path for path in paths if _belongs(path, root))


def _belongs(path: Path, root: Path) -> bool:
    """Whether a path is inside a folder, or contains it."""
    return path.absolute().is_relative_to(root) or root.is_relative_to(path.absolute())


def keep_new() -> None:
    """Marks everything recorded so far as progress, which no later error removes; see :func:`undone_on`."""
    if (current := _new.get()) is not None:
        current[1].clear()


def make_folder(path: Path) -> None:
    """Creates a folder and its missing parents."""
    missing: list[Path] = []
    place = path
    while not os.path.lexists(place):
        missing.insert(0, place)
        place = place.parent
    path.mkdir(parents=True, exist_ok=True)
    note(*missing)


def remove_written(folder: Path, names: Iterable[str]) -> None:
    """Deletes the named files in a folder, then the subfolders and the folder itself if they are empty.

    Nothing is deleted through a symbolic link.
    """
    if folder.is_symlink():
        return
    places = [folder / name for name in names]
    within = {parent for path in places for parent in path.parents if folder in parent.parents} | {folder}
    links = {parent for parent in within if parent.is_symlink()}
    for path in places:
        if not links.intersection(path.parents) and (path.is_file() or path.is_symlink()):
            path.unlink()
    # The deepest first.
    for place in sorted(within - links, key=lambda place: -len(place.parts)):
        with contextlib.suppress(OSError):  # it contains other files
            place.rmdir()


def free_name(path: Path) -> None:
    """Sets aside a folder, link or special file that has the name of a file to be written; see :func:`set_aside`."""
    if path.is_symlink() or (os.path.lexists(path) and not path.is_file()):
        set_aside(path)


def set_aside(path: Path) -> Path:
    """Renames a path that is in the way, so that its content is kept, and returns the new name."""
    number, aside = 1, path.with_name(path.name + ASIDE)
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}{ASIDE}-{number}")
    os.rename(path, aside)
    return aside


def wrong_size(path: Path, size: int) -> str:
    """Describes how a file differs from its expected size in bytes; empty if it does not."""
    if not path.is_file():
        return "is missing"
    actual = path.stat().st_size
    return "" if actual == size else f"has {actual:,} of {size:,} bytes"


def fsync(path: Path) -> None:
    """Flushes a file, or the directory entries of a folder, to disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot flush folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(folder: Path) -> None:
    """Flushes a folder and its content to disk, and gives all of it the folder's permissions, which follow the umask.

    safetensors creates files that only their owner can read.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        path.chmod(mode if path.is_dir() else mode & 0o666)
        fsync(path)
    fsync(folder)


def no_room(error: BaseException, folder: Path) -> bool:
    """Whether an error, or one of its causes, is due to a full disk or an exceeded quota.

    :param folder: folder that was written to.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # torch and safetensors report it only in their message; torch's message is the same for every failed write.
        if re.search(r"[Nn]o space left|os error 28\b", str(seen)):
            return True
        if "failed writing" in str(seen) and shutil.disk_usage(folder).free < FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def bytes_text(count: float) -> str:
    """A number of bytes with its unit: `512 bytes`, `3.2 MB`, `17.0 GB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def bytes_texts(need: float, has: float) -> tuple[str, str]:
    """Two numbers of bytes with units, written out in full if they differ but their short forms do not."""
    short = bytes_text(need), bytes_text(has)
    return (f"{need:,.0f} bytes", f"{has:,.0f} bytes") if short[0] == short[1] and need != has else short


def existing(path: Path) -> Path:
    """The path, or its nearest existing parent."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_writable(out: Path) -> None:
    """Checks, without writing anything, that a folder for results exists or can be created.

    :raises StoreError: if another file has its name, permission is denied, or its name is not UTF-8.
    """
    _check_name(out, "out")
    place = existing(out)
    if out.is_symlink() and not out.exists():
        raise StoreError(f"out {out} is a broken symbolic link; choose another --out, or remove the link")
    if not place.is_dir():
        raise StoreError(f"out {out} cannot be created: {place} is a file; choose another --out")
    if not os.access(place, os.W_OK):
        raise StoreError(f"out {out} cannot be written: permission denied in {place}; choose another --out")


def cache_folder(cache: Path) -> Path:
    """The cache folder with `~` expanded.

    :raises StoreError: if it cannot be created, or its name is not UTF-8.
    """
    try:
        folder = cache.expanduser()
    except RuntimeError as error:  # unknown user or home
        raise StoreError(f"cache {cache} cannot be found: {error}; choose another folder with --cache") from error
    _check_name(folder, "cache")
    if not (place := existing(folder)).is_dir():
        raise StoreError(f"cache {folder} cannot be created: {place} is a file; choose another folder with --cache")
    return folder


def _check_name(path: Path, option: str) -> None:
    """:raises StoreError: for a path that cannot be stored in JSON or opened by the libraries that write models and tables."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{option} {os.fsencode(path.absolute())!r} is not UTF-8; choose another folder with --{option}"
        ) from error
