"""Checksums of the files that mixln wrote into a folder: relative path → length in bytes and SHA-256.

They are stored in the folder's `checksums.json` and identify the files that mixln wrote and that are unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mixln.errors import UnknownEntry
from mixln.files import wrong_size
from mixln.runs.schema import Schema

Sums = Mapping[str, tuple[int, str]]
CHECKSUMS = Schema(kind="checksums", file="checksums.json", record=dict[str, tuple[int, str]])
SUMS = CHECKSUMS.file


def sums_of(folder: Path, *names: str) -> dict[str, tuple[int, str]]:
    """Length and SHA-256 of files in a folder.

    :param names: files, or folders for all files in them; by default everything.
    """
    places = [folder / name for name in names] or [folder]
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _sha256(path))
        for path in files
        if path.is_file() and path != folder / SUMS
    }


def sum_of(content: str) -> tuple[int, str]:
    """Length and SHA-256 of a text in UTF-8."""
    data = content.encode("utf-8")
    return len(data), hashlib.sha256(data).hexdigest()


def write_sums(folder: Path, sums: Sums) -> None:
    """Writes the list of files that were written into a folder, or are about to be."""
    CHECKSUMS.write(folder, sums)


def read_sums(folder: Path, name: str = SUMS) -> dict[str, tuple[int, str]] | None:
    """The list that :func:`write_sums` wrote; `None` if there is none, as in folders of the first versions of mixln.

    :param name: file name of the list.
    :raises ValueError: if it is corrupt; :class:`~mixln.errors.UnknownEntry` if a newer mixln wrote it.
    """
    if not (folder / name).is_file():
        return None
    try:
        sums = CHECKSUMS.read(folder / name)
    except UnknownEntry:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be read ({error})") from error
    # A list from another source must not lead to files outside the folder, which would be deleted.
    if outside := [path for path in sums if path.startswith("/") or ".." in Path(path).parts]:
        raise ValueError(f"{name} lists {outside[0]!r}, which is outside the folder")
    return sums


def difference_of(folder: Path, sums: Sums, *, content: bool = True) -> str:
    """Describes how the listed files of a folder differ from their checksums; empty if they do not. Other files are ignored.

    :param content: whether to compare the SHA-256 too, not only the length.
    """
    for name, (size, digest) in sums.items():
        if fault := wrong_size(folder / name, size):
            return f"{name} {fault}"
        if content and _sha256(folder / name) != digest:
            return f"the content of {name} has changed"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
