"""Writing that leaves either the old content or the new, never a half of it; and removing what was written here, and nothing else."""

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
"""Bytes: a disk with less free room is full."""
TEMPORARY = re.compile(r"\..+\.mixln-[0-9a-f]{12}(\.lock)?")
"""Names of temporary files, and of the lock files of temporary folders."""
ASIDE = ".passed-over"
"""Suffix of the new name of a file or folder that was in the way and has been renamed."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name in the same folder, flushes it to the disk, and renames it.

    Temporary files of writers that were killed are deleted there first.
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
                file.close()  # Windows renames no open file; elsewhere it stays open, for its lock says that its writer lives
            os.replace(temporary, path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if new:
        note(path)


@contextmanager
def folder_atomic(path: Path, *, keeps: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """Yields an empty folder to fill; when the block ends without an error, it is flushed to the disk and takes the name `path`.

    :param keeps: whether a folder that has that name already, as another process may have made it meanwhile, stays; if not, it is set
        aside, see :func:`set_aside`.
    """
    with temporary_folder(path) as temporary:
        yield temporary
        settle(temporary)
        inside = [found.relative_to(temporary) for found in temporary.rglob("*")]
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
    """Yields an empty folder beside `path`, which is deleted at the end; if the process is killed, by the next that writes there."""
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
    """True if a folder holds a file of that name, which shows that it is whole; for :func:`folder_atomic`."""
    return lambda folder: (folder / name).is_file()


def sweep(folder: Path) -> None:
    """Deletes the temporary files and folders that processes which were killed have left in a folder.

    A writer holds a lock while it writes, which ends with it, on another machine too where the file system has locks. What is
    locked stays, and so does everything where there are none.
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
                folder = path.with_suffix("")
                if path.suffix == ".lock" and folder.is_dir():
                    shutil.rmtree(folder)
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _begin(path: Path, suffix: str = "") -> tuple[Path, int]:
    """A new file under a temporary name beside `path`, locked, with the permissions that the process gives new files."""
    while True:
        temporary = path.with_name(f".{path.name}.mixln-{secrets.token_hex(6)}{suffix}")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        # Another process may have swept it in the moment before it was locked.
        if _lock(handle) is not False and (os.name == "nt" or os.fstat(handle).st_nlink):
            return temporary, handle
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Takes the lock of an open file: whether it was free, `None` where there are no locks."""
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
    """Within it, new files and folders in a folder are noted, and that folder; if it ends with one of these errors, they are removed.

    What something else has put into the new folders stays, and those folders with it. So does what is written elsewhere, as into
    the cache, which other processes use.
    """
    outer, made = _new.get(), list[Path]()
    token = _new.set((folder.absolute(), made))
    try:
        yield
    except errors:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        raise
    else:
        if outer is not None:
            outer[1].extend(path for path in made if _belongs(path, outer[0]))
    finally:
        _new.reset(token)


def note(*paths: Path) -> None:
    """Notes that these are new, each after the folder that it lies in; see :func:`undone_on`."""
    if (found := _new.get()) is not None:
        root, made = found
        made.extend(path for path in paths if _belongs(path, root))


def _belongs(path: Path, root: Path) -> bool:
    """True if a path lies in a folder, or the folder in it."""
    return path.absolute().is_relative_to(root) or root.is_relative_to(path.absolute())


def keep_new() -> None:
    """From here on what is new is progress, which no error removes."""
    if (found := _new.get()) is not None:
        found[1].clear()


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, where they are missing."""
    missing: list[Path] = []
    place = path
    while not os.path.lexists(place):
        missing.insert(0, place)
        place = place.parent
    path.mkdir(parents=True, exist_ok=True)
    note(*missing)


def remove_written(folder: Path, names: Iterable[str]) -> None:
    """Deletes files in a folder by name, and the folders within it, and the folder itself, that are empty then.

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
    for place in sorted(within - links, key=lambda place: -len(place.parts)):
        with contextlib.suppress(OSError):  # something else lies in it
            place.rmdir()


def free_name(path: Path) -> None:
    """Sets aside a folder, a link or the like that has the name of a file to be written, see :func:`set_aside`."""
    if path.is_symlink() or (os.path.lexists(path) and not path.is_file()):
        set_aside(path)


def set_aside(path: Path) -> Path:
    """Renames what stands where this program writes, so that nothing of it is lost, and returns its new name."""
    number, aside = 1, path.with_name(path.name + ASIDE)
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}{ASIDE}-{number}")
    os.rename(path, aside)
    return aside


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
    """Flushes a folder with all its content to the disk, and gives everything in it the folder's permissions, which follow the
    umask: safetensors' files are private."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        path.chmod(mode if path.is_dir() else mode & 0o666)
        fsync(path)
    fsync(folder)


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

    :raises StoreError: if something else is in its place, there is no permission, or its name is not UTF-8.
    """
    _check_name(out, "out")
    place = existing(out)
    if out.is_symlink() and not out.exists():
        raise StoreError(f"out {out} is a symbolic link to nothing; choose another --out, or remove the link")
    if not place.is_dir():
        raise StoreError(f"out {out} cannot be made: {place} is a file; choose another --out")
    if not os.access(place, os.W_OK):
        raise StoreError(f"out {out} cannot be written: no permission in {place}; choose another --out")


def cache_folder(cache: Path) -> Path:
    """The folder of the cache, without `~`.

    :raises StoreError: if it cannot be made, or its name is not UTF-8.
    """
    try:
        found = cache.expanduser()
    except RuntimeError as error:  # no such user, or no home
        raise StoreError(f"cache {cache} cannot be found: {error}; name another folder with --cache") from error
    _check_name(found, "cache")
    if not (place := existing(found)).is_dir():
        raise StoreError(f"cache {found} cannot be made: {place} is a file; name another folder with --cache")
    return found


def _check_name(path: Path, option: str) -> None:
    """:raises StoreError: for a path that no JSON file could hold, nor the libraries that write models and tables."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{option} {os.fsencode(path.absolute())!r} is not UTF-8; name another folder with --{option}"
        ) from error
