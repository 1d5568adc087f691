"""Lists data files: regular files inside the folder that the user named, without hidden files and mixln's own output."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mixln.errors import DataError, first_line

OURS: dict[str, frozenset[str]] = {
    "experiment.json": frozenset({"schema", "settings", "grid"}),
    "trial.json": frozenset({"placement", "learning_rate", "seed"}),
    "asked.json": frozenset({"kind", "settings", "seed", "model"}),
    "search.json": frozenset({"command"}),
    "request.json": frozenset({"format", "of", "sequence_length"}),
    "info.json": frozenset({"description", "fingerprint"}),
    "images.json": frozenset({"description", "fingerprint"}),
    "diagnosis.json": frozenset({"settings", "models"}),
    "evaluation.json": frozenset({"settings", "models", "pairs"}),
    "reproduction.json": frozenset({"recipe", "orderings"}),
}
"""File that marks a folder as mixln's output → entries that it must have, so that a user's file of that name is not a mark."""
MARK_BYTES = 2**26
"""Largest such file that is read, bytes (64 MiB)."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: Path, noun: str = "data") -> int:
    """Checks that a file is regular, so that reading it terminates, and returns its size in bytes. Links are followed.

    :param noun: purpose of the file, the first word of the error message.
    :raises DataError: if it is a pipe, a device, a socket or a folder, or does not exist.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{noun} {path} cannot be read: {first_line(error)}; correct or remove it") from error
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DataError(f"{noun} {path} must be a regular file, got {kind}; name a file, or remove it from the folder")
    return status.st_size


def files_in(folder: Path, is_wanted: Callable[[Path], bool], noun: str = "data") -> list[Path]:
    """The wanted files in a folder and its subfolders, sorted by path.

    Hidden files and folders are skipped, and folders that mixln wrote; links to folders are not followed.

    :param is_wanted: selects files by name.
    :param noun: purpose of the files, the first word of an error message.
    :raises DataError: if one is not a regular file, or links to a file outside the folder.
    """
    files = [path for path in _walk(folder, hidden=False) if is_wanted(path)]
    root = os.path.realpath(folder)
    for path in files:
        # A data set from elsewhere must not make mixln train on private files, or read a device that never ends.
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(
                f"{noun} {path} is a link to {os.path.realpath(path)}, outside {folder}; replace it by a copy"
            )
        check_regular(path, noun)
    return sorted(files)


def all_files(folder: Path) -> list[Path]:
    """Every file in a folder and its subfolders, including hidden ones, without mixln's own output; used to detect changes."""
    return sorted(path for path in _walk(folder, hidden=True) if path.is_file())


def linked_folders(folder: Path) -> Iterator[Path]:
    """The links to folders in a folder and its subfolders, without hidden ones."""
    for place, folders, _ in _folders(folder, hidden=False):
        yield from (path for path in (place / name for name in folders) if path.is_symlink())


def _walk(folder: Path, *, hidden: bool) -> Iterator[Path]:
    for place, _, names in _folders(folder, hidden=hidden):
        yield from (place / name for name in names if hidden or not name.startswith("."))


def _folders(folder: Path, *, hidden: bool) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Iterates over folders with the names of their subfolders and files."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here != folder and is_ours(here, names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        yield here, folders, names


def is_ours(folder: Path, names: Iterable[str]) -> bool:
    """Whether mixln wrote a folder: a run, a prepared text, or an entry of the cache.

    :param names: names of its files.
    """
    return any(_has(folder / name, OURS[name]) for name in names if name in OURS)


def _has(path: Path, entries: frozenset[str]) -> bool:
    try:
        if check_regular(path) > MARK_BYTES:
            return False
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and entries <= content.keys()


def printable(name: str | Path) -> str:
    r"""A file name on one line with unprintable characters escaped: `caf\xe9` for a name that is not UTF-8."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(name))


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as represented by Python's surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
