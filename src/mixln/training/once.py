"""A piece of work that is done once in a folder: what is finished there is read, what was cut off goes on, another is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from mixln.errors import MixlnError, StoreError
from mixln.files import check_writable, write_atomic
from mixln.records import difference, from_json, read_json, to_json

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
    if found := difference(there, json.loads(json.dumps(to_json(asked)))):
        raise StoreError(f"out {folder} holds another training: {found}; choose another --out, or the same settings")


def once(folder: Path, asked: dict[str, Any], kind: type[R], work: Callable[[], R]) -> tuple[R, bool]:
    """Does a piece of work, unless its result is there.

    :param asked: everything that the result depends on.
    :param kind: the class of the result, a record.
    :param work: goes on from what it left in `folder`, if it was cut off.
    :returns: the result, and whether it was there already.
    :raises StoreError: as :func:`check_same`; also if another process is at it, or the result is damaged.
    """
    check_same(folder, asked)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            path = folder / RESULT
            if path.is_file():
                try:
                    return from_json(kind, read_json(path)), True
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise StoreError(f"{path} is damaged ({error}); delete it to do this again") from error
            before = {place.name for place in folder.iterdir()}
            write_atomic(folder / ASKED, json.dumps(to_json(asked), indent=1))
            try:
                result = work()
            except MixlnError:  # refused after all: of a new folder nothing stays
                if before <= {LOCK}:
                    shutil.rmtree(folder)
                raise
            write_atomic(path, json.dumps(to_json(result), indent=1, allow_nan=False))
            return result, False
    except Timeout as error:
        raise StoreError(f"out {folder} is in use by another mixln; wait for it, or choose another --out") from error
