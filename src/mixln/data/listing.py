"""The files that are data: regular ones, inside the folder that the user named, without hidden ones and those of mixln's own runs."""

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
"""File that marks a folder as written by mixln → entries that it has, so that a user's file of that name marks none."""
MARK_BYTES = 2**26
"""Bytes of such a file at most: a larger one is not looked into."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: Path, what: str = "data") -> int:
    """Checks that reading a file will come to an end, and returns its bytes. Links are followed.

    :param what: what the file is for, the first word of the message.
    :raises DataError: if it is a pipe, a device, a socket or a folder, or is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {first_line(error)}; mend or remove it") from error
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise DataError(f"{what} {path} must be a regular file, got {kind}; name a file, or remove it from the folder")
    return found.st_size


def files_in(folder: Path, is_wanted: Callable[[Path], bool], what: str = "data") -> list[Path]:
    """The wanted files in a folder and its subfolders, in the order of their paths.

    Hidden files and folders are left out, and folders that mixln wrote; links to folders are not followed.

    :param is_wanted: decides by the name.
    :param what: what the files are for, the first word of a message.
    :raises DataError: if one is no regular file, or a link that leads out of the folder.
    """
    found = [path for path in _walk(folder, hidden=False) if is_wanted(path)]
    root = os.path.realpath(folder)
    for path in found:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(
                f"{what} {path} is a link that leads out of {folder}, to {os.path.realpath(path)}; put a copy in its place"
            )
        check_regular(path, what)
    return sorted(found)


def all_files(folder: Path) -> list[Path]:
    """Every file in a folder and its subfolders, hidden ones too, without those of mixln's own runs: what a change is seen by."""
    return sorted(path for path in _walk(folder, hidden=True) if path.is_file())


def linked_folders(folder: Path) -> Iterator[Path]:
    """The links to folders in a folder and its subfolders that are not hidden."""
    for place, folders, _ in _folders(folder, hidden=False):
        yield from (path for path in (place / name for name in folders) if path.is_symlink())


def _walk(folder: Path, *, hidden: bool) -> Iterator[Path]:
    for place, _, names in _folders(folder, hidden=hidden):
        yield from (place / name for name in names if hidden or not name.startswith("."))


def _folders(folder: Path, *, hidden: bool) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder with the names of its folders and of its files."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here != folder and is_ours(here, names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        yield here, folders, names


def is_ours(folder: Path, names: Iterable[str]) -> bool:
    """True if mixln wrote a folder: a run, a prepared text, or an entry of the cache.

    :param names: of the files in it.
    """
    return any(_has(folder / name, OURS[name]) for name in names if name in OURS)


def _has(path: Path, entries: frozenset[str]) -> bool:
    try:
        if check_regular(path) > MARK_BYTES:
            return False
        held = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(held, dict) and entries <= held.keys()


def printable(name: str | Path) -> str:
    r"""A file's name on one line: what cannot be printed is escaped, so `caf\xe9` for a name that is not UTF-8."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(name))


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it in a name
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
