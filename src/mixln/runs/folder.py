"""A job that is done once in a folder: a finished result is returned, an interrupted job resumes, a different one is refused.

asked.json       what the job is
result.json      written last: the job is done
checksums.json   length and SHA-256 of both, and of what the job leaves: what has changed since is found when it is read
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from mixln.errors import MixlnError, StoreError
from mixln.files import (
    SUMS,
    TEMPORARY,
    Sums,
    check_writable,
    difference_of,
    free_name,
    make_folder,
    note,
    read_sums,
    remove_written,
    set_aside,
    settle,
    sum_of,
    sums_of,
    temporary_folder,
    undone_on,
    write_atomic,
    write_sums,
)
from mixln.records import difference, read_json, read_record, to_json, unreadable

ASKED, RESULT, LOCK = "asked.json", "result.json", ".lock"
R = TypeVar("R")


def check_same(folder: Path, asked: dict[str, Any]) -> None:
    """Checks, without writing, that `folder` is free or holds the same piece of work.

    :raises StoreError: if it holds another; it names the first difference.
    """
    check_writable(folder)
    path = folder / ASKED
    if not path.is_file():
        if folder.is_dir() and any(place.name != LOCK for place in folder.iterdir()):
            raise StoreError(f"out {folder} is not empty and holds nothing to go on with; choose another --out")
        return
    try:
        there = read_json(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); choose another --out, or delete the folder") from error
    if found := difference(there, to_json(asked)):
        raise StoreError(f"out {folder} holds another training: {found}; choose another --out, or the same settings")


def once(
    folder: Path,
    asked: dict[str, Any],
    kind: type[R],
    work: Callable[[], R],
    leaves: Callable[[R], Sequence[str]] = lambda result: (),
) -> tuple[R, bool]:
    """Does a piece of work, unless its result is there.

    Of a job that is refused nothing stays that it has written; what others have put into the folder stays.

    :param asked: everything that the result depends on.
    :param kind: the class of the result, a record.
    :param work: goes on from what it left in `folder`, if it was cut off.
    :param leaves: files and folders in `folder` that belong to a result.
    :returns: the result, and whether it was there already.
    :raises StoreError: as :func:`check_same`; also if another process is at it, the result is damaged, or what belongs to it has
        changed.
    """
    check_same(folder, asked)
    with undone_on(folder, MixlnError):
        make_folder(folder)
        if not (lock := folder / LOCK).exists():
            note(lock)
        try:
            with FileLock(lock, timeout=0), undone_on(folder, MixlnError):
                if (folder / RESULT).is_file():
                    return _read(folder, kind, leaves), True
                write_atomic(folder / ASKED, json.dumps(to_json(asked), indent=1))
                result = work()
                write_result(folder, json.dumps(to_json(result), indent=1, allow_nan=False), (ASKED, *leaves(result)))
                return result, False
        except Timeout as error:
            raise StoreError(
                f"out {folder} is in use by another mixln; wait for it, or choose another --out"
            ) from error


def write_result(folder: Path, content: str, belongs: Sequence[str]) -> None:
    """Writes `result.json`, and before it the checksums of it and of what belongs to it.

    :param belongs: files and folders in `folder`.
    """
    write_sums(folder, {**sums_of(folder, *belongs), RESULT: sum_of(content)})
    free_name(folder / RESULT)
    write_atomic(folder / RESULT, content)


def sums_of_result(folder: Path, remedy: str) -> Sums | None:
    """The checksums of a result and of what belongs to it; `None` in folders of mixln's first versions.

    :param remedy: what to do if they are damaged.
    :raises StoreError: if they are damaged.
    """
    try:
        return read_sums(folder)
    except ValueError as error:
        raise StoreError(f"{folder / SUMS} is damaged ({error}); {remedy}") from error


def _read(folder: Path, kind: type[R], leaves: Callable[[R], Sequence[str]]) -> R:
    """A result, if it and what belongs to it are as they were written."""
    path = folder / RESULT
    remedy = f"put it back, or delete {path} to do this again"
    try:
        result = read_record(kind, path)
    except (OSError, ValueError) as error:
        raise StoreError(unreadable(path, error, "delete it to do this again")) from error
    if missing := [name for name in leaves(result) if not (folder / name).exists()]:
        raise StoreError(f"{folder / missing[0]} is missing, which belongs to {path}; {remedy}")
    if (sums := sums_of_result(folder, remedy)) and (found := difference_of(folder, sums)):
        raise StoreError(f"out {folder} is not as it was written: {found}; {remedy}")
    return result


class ReportFolder:
    """A folder into which one command writes a report, and may write another in its place.

    :param kind: what the command makes, one word; `asked.json` says it.
    :param earlier: whether a folder without `asked.json` holds what mixln's first versions wrote there.
    """

    def __init__(self, folder: Path, kind: str, earlier: Callable[[Path], bool] = lambda folder: False) -> None:
        self.folder, self.kind, self.earlier = folder, kind, earlier

    def check(self) -> None:
        """Checks, without writing, that the folder is free or holds a report of this kind.

        :raises StoreError: if it holds anything else.
        """
        check_writable(self.folder)
        path = self.folder / ASKED
        if not self.folder.is_dir() or all(
            place.name == LOCK or TEMPORARY.fullmatch(place.name) for place in self.folder.iterdir()
        ):
            return
        try:
            ours = dict(read_json(path)).get("kind") == self.kind if path.is_file() else self.earlier(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise StoreError(f"out {self.folder} is not empty and holds no {self.kind}; choose another --out")

    def claim(self) -> None:
        """Makes the folder one for reports of this kind."""
        make_folder(self.folder)
        if not (self.folder / ASKED).is_file():
            write_atomic(self.folder / ASKED, json.dumps({"kind": self.kind}, indent=1))

    def publish(self, write: Callable[[Path], Sequence[Path]], say: Callable[[str], None]) -> list[Path]:
        """Puts a report into the folder, in place of the one before it. Files of others that have the names of its files are renamed.

        :param write: writes the report into an empty folder, and returns the paths of its files.
        :param say: takes one line of news.
        :returns: the paths, in the same order.
        """
        self.claim()
        try:
            listed = read_sums(self.folder) or {}
        except ValueError:
            listed = {}
        mine = {name for name, entry in listed.items() if not difference_of(self.folder, {name: entry})}
        with temporary_folder(self.folder / "report") as made:
            names = [path.name for path in write(made)]
            settle(made)
            for path in (self.folder / name for name in names if name not in mine):
                if os.path.lexists(path):
                    say(f"{path} was not written by this command: it is {set_aside(path).name} now")
            write_sums(self.folder, {**{name: listed[name] for name in mine}, **sums_of(made)})
            for name in names:
                os.replace(made / name, self.folder / name)
        remove_written(self.folder, mine - set(names))
        write_sums(self.folder, sums_of(self.folder, *names))
        return [self.folder / name for name in names]
